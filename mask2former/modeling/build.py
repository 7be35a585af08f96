"""From a recipe to a model: the one place where the keys under MODEL are read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mask2former.config import CfgNode
from mask2former.modeling import losses  # noqa: F401  (fills the LOSS registry)
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.modeling.criterion import LossTerm, PointSampling, SetCriterion
from mask2former.modeling.heads import MaskFormerHead
from mask2former.modeling.maskformer import InferenceSettings, MaskFormer
from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.pixel_decoder.msdeform import MSDeformAttnPixelDecoder
from mask2former.modeling.registry import BACKBONE, LOSS, META_ARCH, PIXEL_DECODER, SEM_SEG_HEADS, TRANSFORMER_DECODER
from mask2former.modeling.transformer_decoder.masked import MultiScaleMaskedTransformerDecoder
from mask2former.structures import LabelSet, builtin_labels
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


def build_model(cfg: CfgNode, labels: LabelSet | None = None) -> nn.Module:
    """The model a recipe describes, with random weights, on MODEL.DEVICE, in training mode.

    labels  the classes: which of them have instances, and their names for CLASS_WEIGHTS; None: those of the first
            training data set where it is a published one, else unknown
    """
    if labels is None and cfg.DATASETS.TRAIN:
        labels = builtin_labels(cfg.DATASETS.TRAIN[0])
    return META_ARCH.get(cfg.MODEL.META_ARCHITECTURE)(cfg, labels).to(cfg.MODEL.DEVICE)


@META_ARCH.register(name="MaskFormer")
def build_maskformer(cfg: CfgNode, labels: LabelSet | None) -> MaskFormer:
    if len(cfg.MODEL.PIXEL_MEAN) != len(cfg.MODEL.PIXEL_STD):
        raise UserError(
            f"MODEL.PIXEL_MEAN has {len(cfg.MODEL.PIXEL_MEAN)} values and MODEL.PIXEL_STD has "
            f"{len(cfg.MODEL.PIXEL_STD)}: both need one per image channel."
        )
    thing_ids = labels.thing_ids if labels else ()
    if any(not 0 <= i < cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES for i in thing_ids):
        raise UserError(
            f"the data set's thing classes {sorted(thing_ids)} do not fit MODEL.SEM_SEG_HEAD.NUM_CLASSES, "
            f"{cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}: set it to the number of classes."
        )
    backbone = build_backbone(cfg)
    mask_former = cfg.MODEL.MASK_FORMER
    head = SEM_SEG_HEADS.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, backbone.output_shape())
    return MaskFormer(
        backbone=backbone,
        sem_seg_head=head,
        criterion=build_criterion(cfg, labels),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        size_divisibility=mask_former.SIZE_DIVISIBILITY,
        deep_supervision=mask_former.DEEP_SUPERVISION,
        thing_ids=thing_ids,
        inference=_inference_settings(cfg),
    )


def _inference_settings(cfg: CfgNode) -> InferenceSettings:
    test = cfg.MODEL.MASK_FORMER.TEST
    return InferenceSettings(
        semantic=test.SEMANTIC_ON,
        panoptic=test.PANOPTIC_ON,
        instance=test.INSTANCE_ON,
        score_threshold=test.OBJECT_MASK_THRESHOLD,
        overlap_threshold=test.OVERLAP_THRESHOLD,
        top_k=cfg.TEST.DETECTIONS_PER_IMAGE,
        # segments and instances are decided per pixel of the result, so their masks are resized before
        resize_first=test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE or test.PANOPTIC_ON or test.INSTANCE_ON,
    )


def build_backbone(cfg: CfgNode) -> nn.Module:
    """The backbone MODEL.BACKBONE.NAME names: a registered one, or ``timm/<model name>``."""
    image = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    if name.startswith("timm/"):
        return TimmBackbone(
            name.removeprefix("timm/"),
            in_channels=image.channels,
            out_features=cfg.MODEL.TIMM.OUT_FEATURES,
            norm=cfg.MODEL.TIMM.NORM,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
        )
    return BACKBONE.get(name)(cfg, image)


@BACKBONE.register(name="build_resnet_backbone")
def build_resnet(cfg: CfgNode, image: ShapeSpec) -> ResNet:
    """detectron2's ResNet: dilation in res5 only, no multi-grid."""
    return _resnet(cfg, image, "basic", (1, 1, 1, cfg.MODEL.RESNETS.RES5_DILATION), (1, 1, 1))


@BACKBONE.register(name="build_resnet_deeplab_backbone")
def build_resnet_deeplab(cfg: CfgNode, image: ShapeSpec) -> ResNet:
    """DeepLab's ResNet: the stem of STEM_TYPE, dilation in res4 and res5, multi-grid in res5."""
    resnets = cfg.MODEL.RESNETS
    dilations = (1, 1, resnets.RES4_DILATION, resnets.RES5_DILATION)
    return _resnet(cfg, image, resnets.STEM_TYPE, dilations, resnets.RES5_MULTI_GRID)


def _resnet(cfg: CfgNode, image: ShapeSpec, stem: str, dilations: Sequence[int], res5_grid: Sequence[int]) -> ResNet:
    resnets = cfg.MODEL.RESNETS
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise UserError("MODEL.RESNETS.DEFORM_ON_PER_STAGE asks for deformable convolution, which is not offered.")
    return ResNet(
        depth=resnets.DEPTH,
        in_channels=image.channels,
        stem=stem,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        dilations=dilations,
        res5_grid=res5_grid,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@SEM_SEG_HEADS.register(name="MaskFormerHead")
def build_maskformer_head(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> MaskFormerHead:
    head = cfg.MODEL.SEM_SEG_HEAD
    wanted = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    if wanted != "multi_scale_pixel_decoder":
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is '{wanted}': expected 'multi_scale_pixel_decoder', "
            "the only source of decoder memory offered yet."
        )
    chosen = _choose(maps, head.IN_FEATURES, "MODEL.SEM_SEG_HEAD.IN_FEATURES")
    pixel_decoder = PIXEL_DECODER.get(head.PIXEL_DECODER_NAME)(cfg, chosen)
    decoder = TRANSFORMER_DECODER.get(cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME)
    return MaskFormerHead(pixel_decoder, decoder(cfg, pixel_decoder.channels, pixel_decoder.mask_channels))


def _choose(maps: dict[str, ShapeSpec], names: Sequence[str], key: str) -> dict[str, ShapeSpec]:
    missing = [n for n in names if n not in maps]
    if missing or not names:
        raise UserError(f"{key} is {list(names)}, but the backbone gives {sorted(maps)}.")
    return {n: maps[n] for n in names}


@PIXEL_DECODER.register(name="MSDeformAttnPixelDecoder")
def build_msdeform_pixel_decoder(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> MSDeformAttnPixelDecoder:
    head = cfg.MODEL.SEM_SEG_HEAD
    key = "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES"
    encoder_in = list(_choose(maps, head[key], f"MODEL.SEM_SEG_HEAD.{key}"))
    return MSDeformAttnPixelDecoder(
        maps,
        encoder_in=encoder_in,
        channels=head.CONVS_DIM,
        mask_channels=head.MASK_DIM,
        norm=head.NORM,
        common_stride=head.COMMON_STRIDE,
        num_layers=head.TRANSFORMER_ENC_LAYERS,
        num_heads=head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS,
        num_points=head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS,
        hidden_channels=head.TRANSFORMER_DIM_FEEDFORWARD,
        dropout=cfg.MODEL.MASK_FORMER.DROPOUT,
    )


@TRANSFORMER_DECODER.register(name="MultiScaleMaskedTransformerDecoder")
def build_masked_decoder(cfg: CfgNode, in_channels: int, mask_channels: int) -> MultiScaleMaskedTransformerDecoder:
    mask_former = cfg.MODEL.MASK_FORMER
    projects = in_channels != mask_former.HIDDEN_DIM or mask_former.ENFORCE_INPUT_PROJ
    least = 4 if projects else 2  # a projection that no layer uses would get no gradient
    if mask_former.DEC_LAYERS < least:
        raise UserError(
            f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}: expected at least {least} (the prediction "
            "from the queries, and a layer for each map of the memory that is used)."
        )
    if mask_former.HIDDEN_DIM % mask_former.NHEADS or mask_former.HIDDEN_DIM % 4:
        raise UserError(
            f"MODEL.MASK_FORMER.HIDDEN_DIM is {mask_former.HIDDEN_DIM}: expected a multiple of 4 and of NHEADS, "
            f"{mask_former.NHEADS}."
        )
    return MultiScaleMaskedTransformerDecoder(
        in_channels,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        hidden_channels=mask_former.HIDDEN_DIM,
        num_queries=mask_former.NUM_OBJECT_QUERIES,
        num_heads=mask_former.NHEADS,
        hidden_ffn_channels=mask_former.DIM_FEEDFORWARD,
        num_layers=mask_former.DEC_LAYERS - 1,  # the published count includes the query prediction
        mask_channels=mask_channels,
        # published recipes' decoder layers have no dropout whatever the key says; the pixel decoder's obeys it
        dropout=0.0,
        pre_norm=mask_former.PRE_NORM,
        enforce_input_proj=mask_former.ENFORCE_INPUT_PROJ,
    )


def build_criterion(cfg: CfgNode, labels: LabelSet | None = None) -> SetCriterion:
    mask_former = cfg.MODEL.MASK_FORMER
    _check_criterion(mask_former)
    weights = [("mask", mask_former.MASK_WEIGHT), ("dice", mask_former.DICE_WEIGHT), *mask_former.EXTRA_LOSSES]
    terms = [LossTerm(name, float(weight), LOSS.get(name)) for name, weight in weights]
    matcher = HungarianMatcher(
        mask_former.CLASS_WEIGHT, mask_former.MASK_WEIGHT, mask_former.DICE_WEIGHT, mask_former.TRAIN_NUM_POINTS
    )
    sampling = PointSampling(
        mask_former.TRAIN_NUM_POINTS, mask_former.OVERSAMPLE_RATIO, mask_former.IMPORTANCE_SAMPLE_RATIO
    )
    return SetCriterion(
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        matcher=matcher,
        class_weight=mask_former.CLASS_WEIGHT,
        class_weights=_class_weights(cfg, labels),
        terms=terms,
        sampling=sampling,
    )


def _class_weights(cfg: CfgNode, labels: LabelSet | None) -> list[float]:
    """Weight of each class in the classification loss, "no object" last: CLASS_WEIGHTS by name, else 1."""
    given, count = cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names = labels.names if labels else ()
    key = "MODEL.MASK_FORMER.CLASS_WEIGHTS"
    for name, weight in given.items():
        if name not in names:
            known = (
                f"Known: {', '.join(names[:20])}." if names else "The classes of this recipe's data set are unknown."
            )
            raise UserError(f"{key} names the class {name!r}.{suggest(name, names)} {known}")
        if not isinstance(weight, (int, float)) or weight <= 0:
            raise UserError(f"{key}.{name} is {weight!r}: expected a number above 0.")
    by_class = [float(given.get(name, 1.0)) for name in names] if given else [1.0] * count
    return [*by_class, cfg.MODEL.MASK_FORMER.NO_OBJECT_WEIGHT]


def _check_criterion(mask_former: CfgNode) -> None:
    extra = mask_former.EXTRA_LOSSES
    if any(not isinstance(e, (list, tuple)) or len(e) != 2 for e in extra):
        raise UserError(f"MODEL.MASK_FORMER.EXTRA_LOSSES is {extra}: expected [name, weight] pairs.")
    names = ["ce", "mask", "dice", *(name for name, _ in extra)]
    if len(set(names)) < len(names):
        raise UserError(f"MODEL.MASK_FORMER.EXTRA_LOSSES is {extra}: each name once, other than ce, mask and dice.")
    if mask_former.NO_OBJECT_WEIGHT <= 0:
        raise UserError(f"MODEL.MASK_FORMER.NO_OBJECT_WEIGHT is {mask_former.NO_OBJECT_WEIGHT}: expected more than 0.")
    if mask_former.OVERSAMPLE_RATIO < 1 or not 0 <= mask_former.IMPORTANCE_SAMPLE_RATIO <= 1:
        raise UserError(
            f"MODEL.MASK_FORMER.OVERSAMPLE_RATIO is {mask_former.OVERSAMPLE_RATIO}, expected at least 1; "
            f"IMPORTANCE_SAMPLE_RATIO is {mask_former.IMPORTANCE_SAMPLE_RATIO}, expected 0 to 1."
        )
