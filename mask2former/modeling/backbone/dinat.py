"""DiNAT and NAT with the published tensor names, in their form for dense prediction.

Sources: Neighborhood Attention Transformer (Hassani et al., CVPR 2023, sec. 3.3) and Dilated Neighborhood Attention
Transformer (Hassani and Shi, 2022, sec. 3.3), which is the same with other dilations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.backbone.stages import STAGES, check_stages, init_linear
from mask2former.modeling.layers.linear import Linear, Mlp
from mask2former.modeling.layers.recompute import Recomputable
from mask2former.ops import neighborhood_attention_2d
from mask2former.utils.errors import UserError

# B batch, C channels, H W size of a map in tokens, h w size of the image, N heads, D channels of a head


class NeighborhoodAttention(nn.Module):
    """Multi-head self-attention [B,H,W,C] of each token to those around it, with a learned bias per offset."""

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        kernel_size: int,
        dilation: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        drop: float,
    ):
        super().__init__()
        self.num_heads, self.kernel_size, self.dilation, self.attn_drop = num_heads, kernel_size, dilation, attn_drop
        self.scale = qk_scale or (channels // num_heads) ** -0.5
        self.rpb = nn.Parameter(torch.zeros(num_heads, 2 * kernel_size - 1, 2 * kernel_size - 1))
        nn.init.trunc_normal_(self.rpb, std=0.02)
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        # small maps get zeros below and to the right before they are projected, as in the authors' classifier: these
        # tokens are keys, whose value is the bias
        least = self.kernel_size * self.dilation
        x = F.pad(x, (0, 0, 0, max(least - width, 0), 0, max(least - height, 0)))
        q, k, v = self.qkv(x).unflatten(3, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)  # [B,N,H,W,D] each
        dropout = self.attn_drop if self.training else 0.0
        out = neighborhood_attention_2d(q, k, v, self.rpb, self.kernel_size, self.dilation, self.scale, dropout)
        out = out[:, :, :height, :width].permute(0, 2, 3, 1, 4).flatten(3)
        return self.proj_drop(self.proj(out))


class Block(Recomputable):
    """Neighbourhood attention and an MLP, both residual and normalised before.

    layer_scale  initial factor of both, learned per channel (Touvron et al., CaiT, ICCV 2021); None: none
    """

    def __init__(
        self,
        channels: int,
        *,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        layer_scale: float | None,
        **attention,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = NeighborhoodAttention(channels, drop=drop, **attention)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop=drop)
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), layer_scale))
            self.gamma2 = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:  # [B,H,W,C]
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


def _scaled(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x * factor


class Tokenizer(nn.Module):
    """Map an image [B,3,h,w] to tokens [B,ceil(h/4),ceil(w/4),C] by two overlapping convolutions."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Downsampler(nn.Module):
    """Map tokens [B,H,W,C] to half as many each way [B,ceil(H/2),ceil(W/2),2*C] by an overlapping convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduction = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Level(nn.Module):
    """Blocks, and the halving of the resolution that follows them."""

    def __init__(
        self, channels: int, dilations: Sequence[int], drop_paths: Sequence[float], *, downsamples: bool, **block
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, dilation=d, drop_path=p, **block) for d, p in zip(dilations, drop_paths, strict=True)
        )
        self.downsample = Downsampler(channels) if downsamples else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class DiNAT(nn.Module):
    """Maps {"res2": [B,C,h/4,w/4], ...} of an image [B,3,h,w] of any size, for the names in ``out_features``.

    channels           of the first level; doubled with every level
    depths, num_heads  per level
    kernel_size        edge of a neighbourhood, in tokens
    dilations          per level, per block; None: 1 everywhere, which is NAT
    drop_path          stochastic depth: grows linearly from 0 at the first block to this at the last
    layer_scale        initial value of learned factors on the residual branches; None: none
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        channels: int = 192,
        depths: Sequence[int] = (3, 4, 18, 5),
        num_heads: Sequence[int] = (6, 12, 24, 48),
        kernel_size: int = 7,
        dilations: Sequence[Sequence[int]] | None = None,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        out_features: Sequence[str] = STAGES,
    ):
        super().__init__()
        dilations = dilations or [[1] * depth for depth in depths]
        check_stages("DINAT", channels, depths, num_heads, out_features)
        _check_neighbourhoods(depths, kernel_size, dilations)
        self.patch_embed = Tokenizer(in_channels, channels)
        self.pos_drop = nn.Dropout(drop)
        rates = iter(torch.linspace(0, drop_path, sum(depths), device="cpu").tolist())
        last = max(STAGES.index(f) for f in out_features)
        self.levels = nn.ModuleList()
        self._shapes: dict[str, ShapeSpec] = {}
        for index, name in enumerate(STAGES[: last + 1]):
            level = Level(
                channels * 2**index,
                dilations[index],
                [next(rates) for _ in range(depths[index])],
                downsamples=index < last,
                num_heads=num_heads[index],
                kernel_size=kernel_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop,
                attn_drop=attn_drop,
                layer_scale=layer_scale,
            )
            self.levels.append(level)
            if name in out_features:
                self.add_module(f"norm{index}", nn.LayerNorm(channels * 2**index))
                self._shapes[name] = ShapeSpec(channels * 2**index, 4 * 2**index)
        self.apply(init_linear)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pos_drop(self.patch_embed(x))  # [B,H,W,C]
        maps = {}
        for index, (name, level) in enumerate(zip(STAGES, self.levels)):
            x = level(x)
            if name in self._shapes:
                maps[name] = getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2).contiguous()
            if level.downsample is not None:
                x = level.downsample(x)
        return maps


def _check_neighbourhoods(depths: Sequence[int], kernel_size: int, dilations: Sequence[Sequence[int]]) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(f"MODEL.DINAT.KERNEL_SIZE is {kernel_size}: expected an odd number.")
    if [len(d) for d in dilations] != list(depths) or any(d < 1 for level in dilations for d in level):
        raise UserError(
            f"MODEL.DINAT.DILATIONS is {[list(d) for d in dilations]}: expected a list per level with a number from 1 "
            f"per block, and DEPTHS is {list(depths)}."
        )
