"""Swin classifiers: the authors' (and timm's before 0.9), and timm's since, which moved the merging of patches."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mask2former.checkpoint.formats.backbones import backbone_format
from mask2former.checkpoint.formats.rules import Weights, same
from mask2former.modeling.backbone.swin import relative_position_index

_TABLE = ".relative_position_bias_table"
_INDEX = ".relative_position_index"
_NORMS = tuple(f"backbone.norm{i}.{leaf}" for i in range(4) for leaf in ("weight", "bias"))

_TRUNK = [
    same("backbone.patch_embed.", "patch_embed."),
    same("backbone.absolute_pos_embed", "absolute_pos_embed"),
    same("backbone.layers.", "layers."),
    same("backbone.norm{i}.", "norm{i}."),  # of backbones for detection; a classifier has one for the last map
]
# theirs merges before the second, third and fourth stage; ours after the first, second and third
_MERGING_FIRST = [same(f"backbone.layers.{i}.downsample.", f"layers.{i + 1}.downsample.") for i in range(3)]


def _is_swin(weights: Mapping[str, Tensor]) -> bool:
    return {"patch_embed.proj.weight", f"layers.0.blocks.0.attn{_TABLE}"} <= weights.keys()


def _merges_first(weights: Mapping[str, Tensor]) -> bool:
    return "layers.3.downsample.reduction.weight" in weights


def complete_windows(weights: Weights) -> Weights:
    """Without the masks, which follow from the size of the image, and with an index for each bias table."""
    result = {name: value for name, value in weights.items() if not name.endswith(".attn_mask")}
    for name, table in weights.items():
        index = name.removesuffix(_TABLE) + _INDEX
        if name.endswith(_TABLE) and index not in result:
            edge = round(len(table) ** 0.5)  # 2 * window - 1
            result[index] = relative_position_index((edge + 1) // 2)
    return result


ORIGINAL = backbone_format(
    "swin",
    "the authors' Swin classifier",
    lambda weights: _is_swin(weights) and not _merges_first(weights),
    _TRUNK,
    complete=complete_windows,
    left_out=_NORMS,
)

TIMM = backbone_format(
    "timm-swin",
    "timm's Swin classifier",
    lambda weights: _is_swin(weights) and _merges_first(weights),
    [*_MERGING_FIRST, *_TRUNK],
    complete=complete_windows,
    left_out=(*_NORMS, _INDEX),
)
