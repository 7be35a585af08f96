"""mmdetection's Swin: other names, and patches merged by `nn.Unfold`, which has another order of channels."""

from __future__ import annotations

from torch import Tensor

from mask2former.checkpoint.formats.backbones import backbone_format
from mask2former.checkpoint.formats.rules import Rule, changed, same
from mask2former.checkpoint.formats.swin import complete_windows

# C channels of a token, N tokens of a square map

# Ours lays the four tokens of a 2x2 square one after the other, down the first column and then down the second.
# Unfold goes through the square row by row, channel by channel: this is our i-th token's place among the four.
_ROW_BY_ROW = [0, 2, 1, 3]


def from_unfolded(x: Tensor) -> Tensor:
    """Unfold's order of channels along the last axis [..,C*4] -> ours [..,4*C]."""
    return x.unflatten(-1, (-1, 4))[..., _ROW_BY_ROW].transpose(-1, -2).flatten(-2)


def to_unfolded(x: Tensor) -> Tensor:
    """Our order of channels along the last axis [..,4*C] -> Unfold's [..,C*4]."""
    return x.unflatten(-1, (4, -1))[..., _ROW_BY_ROW, :].transpose(-1, -2).flatten(-2)


def _to_map(positions: Tensor) -> Tensor:  # [1,N,C] -> [1,C,H,W]
    edge = round(positions.shape[1] ** 0.5)  # pretraining images are square
    return positions.unflatten(1, (edge, -1)).permute(0, 3, 1, 2)


def _to_tokens(positions: Tensor) -> Tensor:  # [1,C,H,W] -> [1,N,C]
    return positions.flatten(2).transpose(1, 2)


_RULES: list[Rule] = [
    same("backbone.patch_embed.proj.", "patch_embed.projection."),
    same("backbone.patch_embed.norm.", "patch_embed.norm."),
    changed("backbone.absolute_pos_embed", "absolute_pos_embed", _to_map, _to_tokens),
    same("backbone.layers.{i}.blocks.{j}.norm1.", "stages.{i}.blocks.{j}.norm1."),
    same("backbone.layers.{i}.blocks.{j}.attn.", "stages.{i}.blocks.{j}.attn.w_msa."),
    same("backbone.layers.{i}.blocks.{j}.norm2.", "stages.{i}.blocks.{j}.norm2."),
    same("backbone.layers.{i}.blocks.{j}.mlp.fc1.", "stages.{i}.blocks.{j}.ffn.layers.0.0."),
    same("backbone.layers.{i}.blocks.{j}.mlp.fc2.", "stages.{i}.blocks.{j}.ffn.layers.1."),
    changed("backbone.layers.{i}.downsample.norm.{P}", "stages.{i}.downsample.norm.{P}", from_unfolded, to_unfolded),
    changed(
        "backbone.layers.{i}.downsample.reduction.weight",
        "stages.{i}.downsample.reduction.weight",
        from_unfolded,
        to_unfolded,
    ),
    *(same(f"backbone.norm{i}.", f"norm{i}.") for i in range(4)),
]

# the names below `backbone.` of mmdetection's files
MMDETECTION_SWIN = backbone_format(
    "mmdetection-swin",
    "mmdetection's Swin",
    lambda weights: {"patch_embed.projection.weight", "stages.0.blocks.0.attn.w_msa.qkv.weight"} <= weights.keys(),
    _RULES,
    complete=complete_windows,
)
