"""What Hugging Face's `from_pretrained` reads beside weights: config.json and preprocessor_config.json.

Sizes are read from the shapes of our tensors. What they do not tell takes their defaults, which are the published
values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mask2former.checkpoint.formats.hf_backbones import STAGES
from mask2former.utils.errors import UserError

# their pixel decoder's, which has no keys for them (Mask2Former, sec. 4.1: three levels; Deformable DETR: four points)
_LEVELS, _POINTS = 3, 4
_BOTTLENECK = 4  # output channels of their ResNet's blocks per inner channel
_STAGE_NAMES = [f"stage{stage + 1}" for stage in STAGES]


@dataclass(frozen=True)
class ImageSettings:
    """How images become input, of the published COCO recipes where nothing is said.

    mean, std      per channel, red first, of values from 0 to 255: MODEL.PIXEL_MEAN and PIXEL_STD
    short, long    of the resized image in pixels: INPUT.MIN_SIZE_TEST, the most of the other side MAX_SIZE_TEST
    divisor        of both sides of the input: MODEL.MASK_FORMER.SIZE_DIVISIBILITY
    ignore_label   of pixels without ground truth
    """

    mean: Sequence[float] = (123.675, 116.28, 103.53)
    std: Sequence[float] = (58.395, 57.12, 57.375)
    short: int = 800
    long: int = 1333
    divisor: int = 32
    ignore_label: int = 255


def preprocessor_config(processor: str, image: ImageSettings) -> dict:
    """preprocessor_config.json of an image processor of theirs, such as "Mask2FormerImageProcessor".

    Theirs stretches the resized image to multiples of the divisor, where ours pads; the published folders are made
    for that, so it is left as it is.
    """
    return {
        "image_processor_type": processor,
        "do_resize": True,
        "size": {"shortest_edge": image.short, "longest_edge": image.long},
        "resample": 2,  # PIL's number for bilinear
        "size_divisor": image.divisor,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in image.mean],
        "image_std": [value / 255 for value in image.std],
        "ignore_index": image.ignore_label,
        "do_reduce_labels": False,
    }


def label_config(num_classes: int, names: Sequence[str] | None) -> dict:
    """The part of config.json on classes; their count is that of `id2label`.

    Raises:
        UserError: another number of names than classes.
    """
    if names is not None and len(names) != num_classes:
        raise UserError(f"{len(names)} class names for weights of {num_classes} classes. Give one name per class.")
    given = names or [f"LABEL_{number}" for number in range(num_classes)]  # the default of transformers
    return {
        "id2label": {str(number): name for number, name in enumerate(given)},
        "label2id": {name: number for number, name in enumerate(given)},
    }


def backbone_config(weights: Mapping[str, Tensor]) -> dict:
    """The part of config.json on our Swin or ResNet.

    Raises:
        UserError: neither, or with blocks that theirs does not have.
    """
    for first, describe in (("patch_embed.proj", _swin_config), ("stem.conv1", _resnet_config)):
        if f"backbone.{first}.weight" in weights:
            return {**describe(weights), "out_features": _STAGE_NAMES}
    raise UserError("transformers takes a Swin or a ResNet as backbone, which these weights do not have.")


def _swin_config(weights: Mapping[str, Tensor]) -> dict:
    patches = weights["backbone.patch_embed.proj.weight"]  # [C,3,patch,patch]
    first = "backbone.layers.{}.blocks.0."
    tables = [weights[f"{first}attn.relative_position_bias_table".format(stage)] for stage in STAGES]  # [E*E,heads]
    wide = weights[f"{first}mlp.fc1.weight".format(0)]
    return {
        "model_type": "swin",
        "embed_dim": patches.shape[0],
        "num_channels": patches.shape[1],
        "patch_size": patches.shape[2],
        "depths": [count(weights, f"backbone.layers.{stage}.blocks.") for stage in STAGES],
        "num_heads": [table.shape[1] for table in tables],
        "window_size": (round(len(tables[0]) ** 0.5) + 1) // 2,  # E = 2 * window - 1
        "mlp_ratio": wide.shape[0] / wide.shape[1],
        "qkv_bias": f"{first}attn.qkv.bias".format(0) in weights,
    }


def _resnet_config(weights: Mapping[str, Tensor]) -> dict:
    block = "backbone.res{}.0."
    inner = [weights[f"{block}conv2.weight".format(stage + 2)].shape for stage in STAGES]
    outer = [weights[f"{block}conv3.weight".format(stage + 2)].shape[0] for stage in STAGES]
    if any(shape[0] * _BOTTLENECK != width or shape[0] != shape[1] for shape, width in zip(inner, outer)):
        raise UserError(
            f"transformers' ResNet has blocks of a quarter of the {outer} channels inside, without groups; these "
            f"weights have {[shape[0] for shape in inner]}. Use --to official."
        )
    stem = weights["backbone.stem.conv1.weight"]  # [C,3,7,7]
    return {
        "model_type": "resnet",
        "layer_type": "bottleneck",
        "embedding_size": stem.shape[0],
        "num_channels": stem.shape[1],
        "hidden_sizes": outer,
        "depths": [count(weights, f"backbone.res{stage + 2}.") for stage in STAGES],
        "downsample_in_bottleneck": False,  # strides are in the 3x3 convolutions: RESNETS.STRIDE_IN_1X1 False
    }


def count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbers follow a prefix in tensors' names."""
    return len({name[len(prefix) :].partition(".")[0] for name in weights if name.startswith(prefix)})


def mask2former_config(weights: Mapping[str, Tensor], names: Sequence[str] | None = None) -> dict:
    """config.json of a Mask2FormerForUniversalSegmentation with our tensors.

    Theirs has one number of heads: that of the pixel decoder, which its shapes tell. NHEADS of the transformer decoder
    is in no shape and must be the same, as in all published recipes (8).

    Args:
        weights: ours, of a model that `HF_MASK2FORMER.from_ours` takes.
        names: of the classes; None: numbered ones.

    Raises:
        UserError: the backbone is none of theirs, or names do not match the number of classes.
    """
    decoder, predictor = "sem_seg_head.pixel_decoder.", "sem_seg_head.predictor."
    layer = f"{decoder}transformer.encoder.layers."
    num_queries, hidden = weights[f"{predictor}query_feat.weight"].shape
    mask_channels, channels = weights[f"{decoder}mask_features.weight"].shape[:2]
    offsets = weights[f"{layer}0.self_attn.sampling_offsets.bias"]  # heads * levels * points * (x, y)
    config = {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "backbone_config": backbone_config(weights),
        "feature_size": channels,
        "mask_feature_size": mask_channels,
        "hidden_dim": hidden,
        "encoder_layers": count(weights, layer),
        "encoder_feedforward_dim": weights[f"{layer}0.linear1.weight"].shape[0],
        # theirs counts the prediction before the first layer, too, as DEC_LAYERS does
        "decoder_layers": count(weights, f"{predictor}transformer_ffn_layers.") + 1,
        "dim_feedforward": weights[f"{predictor}transformer_ffn_layers.0.linear1.weight"].shape[0],
        "num_attention_heads": len(offsets) // (_LEVELS * _POINTS * 2),
        "num_queries": num_queries,
        "enforce_input_projection": f"{predictor}input_proj.0.weight" in weights,
        **label_config(len(weights[f"{predictor}class_embed.bias"]) - 1, names),
    }
    if "criterion.empty_weight" in weights:
        config["no_object_weight"] = float(weights["criterion.empty_weight"][-1])
    return config


def maskformer_config(weights: Mapping[str, Tensor], names: Sequence[str] | None = None) -> dict:
    """config.json of a MaskFormerForInstanceSegmentation with our tensors.

    Args:
        weights: ours, of a model that `HF_MASKFORMER.from_ours` takes.
        names: of the classes; None: numbered ones.

    Raises:
        UserError: the backbone is none of theirs, or names do not match the number of classes.
    """
    predictor = "sem_seg_head.predictor."
    layers = f"{predictor}transformer.decoder.layers."
    num_queries, hidden = weights[f"{predictor}query_embed.weight"].shape
    mask_channels, channels = weights["sem_seg_head.pixel_decoder.mask_features.weight"].shape[:2]
    config = {
        "architectures": ["MaskFormerForInstanceSegmentation"],
        "model_type": "maskformer",
        "backbone_config": backbone_config(weights),
        "fpn_feature_size": channels,
        "mask_feature_size": mask_channels,
        "decoder_config": {
            "model_type": "detr",
            "d_model": hidden,
            "num_queries": num_queries,
            "decoder_layers": count(weights, layers),
            "decoder_ffn_dim": weights[f"{layers}0.linear1.weight"].shape[0],
            "auxiliary_loss": False,  # True would feed each layer what the final norm makes of the one before
        },
        **label_config(len(weights[f"{predictor}class_embed.bias"]) - 1, names),
    }
    if "criterion.empty_weight" in weights:
        config["no_object_weight"] = float(weights["criterion.empty_weight"][-1])
    return config
