"""mmdetection's Mask2Former, with its ResNet or Swin, as its releases 2.x and 3.x name the tensors.

Levels of the pixel decoder go from the coarsest map to the finest in both, a decoder layer attends to the image before
it attends to the queries, and classes are COCO's in the same order, things first: names differ, values do not. Only
Swin's merging of patches has another layout (`mmdet_swin.py`). Sources: its mask2former_head.py,
msdeformattn_pixel_decoder.py and mask2former_layers.py, and `operation_order` in the recipes of 2.x.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.mmdet_swin import MMDETECTION_SWIN
from mask2former.checkpoint.formats.resnet import TORCHVISION
from mask2former.checkpoint.formats.rules import Rule, Weights, same, to_ours, to_theirs
from mask2former.utils.errors import UserError

_BACKBONE = "backbone."
_BACKBONES = (TORCHVISION, MMDETECTION_SWIN)  # below `backbone.`; its ResNet has torchvision's names
_HEAD = "sem_seg_head."
_CLASS_HEAD = "panoptic_head.cls_embed.weight"  # [K+1,C]
_CLASS_WEIGHTS = "criterion.empty_weight"
_NO_OBJECT_WEIGHT = 0.1  # loss_cls.class_weight of all its recipes, as of the published ones
_COUNTER = "num_batches_tracked"  # of their BatchNorm, which is frozen: nothing depends on it


@dataclass(frozen=True)
class _Names:
    """What the releases call the parts of a layer."""

    encoder_attention: str
    cross_attention: str
    self_attention: str
    ffn: str


def _pixel_decoder(names: _Names) -> Iterator[Rule]:
    ours, theirs = "sem_seg_head.pixel_decoder.", "panoptic_head.pixel_decoder."
    yield same(f"{ours}input_proj.{{i}}.0.", f"{theirs}input_convs.{{i}}.conv.")
    yield same(f"{ours}input_proj.{{i}}.1.", f"{theirs}input_convs.{{i}}.gn.")
    yield same(f"{ours}transformer.level_embed", f"{theirs}level_encoding.weight")
    for part, their_part in (("adapter_1", "lateral_convs.0"), ("layer_1", "output_convs.0")):
        yield same(f"{ours}{part}.norm.", f"{theirs}{their_part}.gn.")  # before the convolution: its name is longer
        yield same(f"{ours}{part}.", f"{theirs}{their_part}.conv.")
    yield same(f"{ours}mask_features.", f"{theirs}mask_feature.")
    layer, their_layer = f"{ours}transformer.encoder.layers.{{i}}.", f"{theirs}encoder.layers.{{i}}."
    yield same(f"{layer}self_attn.", f"{their_layer}{names.encoder_attention}.")
    yield same(f"{layer}norm1.", f"{their_layer}norms.0.")
    yield same(f"{layer}linear1.", f"{their_layer}{names.ffn}.layers.0.0.")
    yield same(f"{layer}linear2.", f"{their_layer}{names.ffn}.layers.1.")
    yield same(f"{layer}norm2.", f"{their_layer}norms.1.")


def _predictor(names: _Names) -> Iterator[Rule]:
    ours, theirs = "sem_seg_head.predictor.", "panoptic_head."
    layer = f"{theirs}transformer_decoder.layers.{{i}}."
    cross, own, ffn = (
        f"{ours}transformer_{part}_layers.{{i}}." for part in ("cross_attention", "self_attention", "ffn")
    )
    yield same(f"{cross}multihead_attn.", f"{layer}{names.cross_attention}.attn.")
    yield same(f"{cross}norm.", f"{layer}norms.0.")
    yield same(f"{own}self_attn.", f"{layer}{names.self_attention}.attn.")
    yield same(f"{own}norm.", f"{layer}norms.1.")
    yield same(f"{ffn}linear1.", f"{layer}{names.ffn}.layers.0.0.")
    yield same(f"{ffn}linear2.", f"{layer}{names.ffn}.layers.1.")
    yield same(f"{ffn}norm.", f"{layer}norms.2.")
    yield same(f"{ours}decoder_norm.", f"{theirs}transformer_decoder.post_norm.")
    yield same(f"{ours}input_proj.", f"{theirs}decoder_input_projs.")
    for name in ("query_embed", "query_feat", "level_embed"):
        yield same(f"{ours}{name}.", f"{theirs}{name}.")
    yield same(f"{ours}class_embed.", f"{theirs}cls_embed.")
    for number in range(3):  # an activation stands between two of theirs
        yield same(f"{ours}mask_embed.layers.{number}.", f"{theirs}mask_embed.{2 * number}.")


def _head(names: _Names) -> list[Rule]:
    return [*_pixel_decoder(names), *_predictor(names)]


def _recognises(weights: Mapping[str, Tensor], names: _Names) -> bool:
    """Its MaskFormer has no `query_feat`, its other models no `panoptic_head`."""
    attention = f"panoptic_head.transformer_decoder.layers.0.{names.cross_attention}.attn.in_proj_weight"
    return {"panoptic_head.query_feat.weight", _CLASS_HEAD, attention} <= weights.keys()


def _to_ours(weights: Mapping[str, Tensor], names: _Names) -> Weights:
    inside = {name.removeprefix(_BACKBONE): x for name, x in weights.items() if name.startswith(_BACKBONE)}
    rest = {name: x for name, x in weights.items() if not name.startswith(_BACKBONE)}
    known = next((one for one in _BACKBONES if one.recognises(inside)), None)
    backbone = known.to_ours(inside) if known else {f"{_BACKBONE}{name}": x for name, x in inside.items()}
    backbone = {name: x for name, x in backbone.items() if not name.endswith(_COUNTER)}
    return {**backbone, **to_ours(rest, _head(names)), _CLASS_WEIGHTS: _class_weights(weights[_CLASS_HEAD])}


def _class_weights(head: Tensor) -> Tensor:
    """What ours keeps of the loss in its files [K+1]; theirs leaves it to the recipe."""
    result = torch.ones(len(head))
    result[-1] = _NO_OBJECT_WEIGHT
    return result


def _from_ours(weights: Mapping[str, Tensor], names: _Names, title: str) -> Weights:
    head = {name: x for name, x in weights.items() if name.startswith(_HEAD)}
    theirs = to_theirs(head, _head(names))
    strange = [name for name in theirs if name.startswith(_HEAD)]
    if strange or not _recognises(theirs, names):
        found = f"it has no counterpart of {strange[0]}" if strange else "it is no Mask2Former"
        raise UserError(
            f"{title} cannot express this model: {found}. It has MSDeformAttn's pixel decoder on three of four maps "
            "and the decoder with masked attention. Choose another format with --to."
        )
    of_swin = f"{_BACKBONE}patch_embed.proj.weight" in weights
    backbone = (MMDETECTION_SWIN if of_swin else TORCHVISION).from_ours(weights)
    return {**{f"{_BACKBONE}{name}": x for name, x in _with_counters(backbone).items()}, **theirs}


def _with_counters(backbone: Weights) -> Weights:
    """With a counter for each BatchNorm, as those files have."""
    result = dict(backbone)
    for name in backbone:
        norm = name.removesuffix("running_var")
        if norm != name:
            result[f"{norm}{_COUNTER}"] = torch.tensor(0)
    return result


def _release(number: int, names: _Names) -> Format:
    title = f"mmdetection {number}.x Mask2Former"
    return Format(
        name=f"mmdetection-{number}",
        title=title,
        whole=True,
        recognises=partial(_recognises, names=names),
        to_ours=partial(_to_ours, names=names),
        from_ours=partial(_from_ours, names=names, title=title),
    )


MMDETECTION_2 = _release(2, _Names("attentions.0", "attentions.0", "attentions.1", "ffns.0"))  # in the order of use
MMDETECTION_3 = _release(3, _Names("self_attn", "cross_attn", "self_attn", "ffn"))
