"""Swin Transformer with the published tensor names, in its form for dense prediction (Liu et al., ICCV 2021)."""

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
from mask2former.utils.errors import UserError

# B batch, C channels, H W size of a map in tokens; Y X windows down and across, N tokens of a window, G heads,
# D channels of a head

# Added to the logits of token pairs that are no neighbours; the published value, -inf in effect.
_APART = -100.0


def pad_to_multiple(x: Tensor, edge: int) -> Tensor:
    """Append zeros below and right of a map [B,H,W,C] until both sides are multiples of ``edge``."""
    height, width = x.shape[1:3]
    return F.pad(x, (0, 0, 0, -width % edge, 0, -height % edge))


def to_windows(x: Tensor, window: int) -> Tensor:
    """Cut a map [B,H,W,C] into squares [B,Y,X,N,C]."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).flatten(3, 4)


def from_windows(x: Tensor, window: int) -> Tensor:
    """Put squares [B,Y,X,N,C] together to a map [B,H,W,C]."""
    return x.unflatten(3, (window, window)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of tokens of a window [N,N], by their offset (sec. 3.2, eq. 4)."""
    line = torch.arange(window)
    y, x = (t.flatten() for t in torch.meshgrid(line, line, indexing="ij"))  # [N]
    down, right = (t[:, None] - t + window - 1 for t in (y, x))  # [N,N], 0 .. 2 * window - 2
    return down * (2 * window - 1) + right


def shift_masks(window: int, shift: int) -> Tensor:
    """What to add to the attention logits of shifted windows [4,N,N], for the four kinds of ``window_kinds``.

    Rolling a map by ``-shift`` brings its first lines behind its last ones, so the last window of a row or column
    holds tokens from both ends, which must not see each other (sec. 3.2, fig. 4). All other windows are whole.
    """
    cut = (torch.arange(window) >= window - shift).long()  # 1: came from the other end
    whole = torch.zeros_like(cut)
    masks = []
    for rows in (whole, cut):
        for columns in (whole, cut):
            region = (2 * rows[:, None] + columns).flatten()  # [N]
            masks.append(region[:, None] != region)
    return torch.stack(masks) * _APART


def window_kinds(rows: int, columns: int, device: torch.device) -> Tensor:
    """For each window of the grid [Y*X]: 1 if it is the last of its row, plus 2 if it is in the last row."""
    in_last_row = torch.arange(rows, device=device) == rows - 1
    is_last = torch.arange(columns, device=device) == columns - 1
    return (2 * in_last_row[:, None] + is_last).flatten()


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window, with a learned bias per offset of two tokens.

    Masks depend on the window alone and not on the map: they are made once, and sizes choose among them.
    """

    def __init__(
        self,
        channels: int,
        *,
        num_heads: int,
        window: int,
        shift: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        drop: float,
    ):
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.scale = qk_scale or (channels // num_heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.register_buffer("shift_masks", shift_masks(window, shift) if shift else None, persistent=False)
        self.qkv = Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(drop)

    def _bias(self, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        """What is added to the logits: [1,G,N,N] for all windows, or [Y*X,G,N,N] where they are shifted."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None].to(dtype)
        if self.shift_masks is None:
            return bias
        return bias + self.shift_masks.to(dtype)[window_kinds(rows, columns, bias.device), None]

    def forward(self, x: Tensor) -> Tensor:
        """Map windows [B,Y,X,N,C] to the same shape."""
        batch, rows, columns, tokens, _ = x.shape
        qkv = self.qkv(x).view(batch, rows * columns, tokens, 3, self.num_heads, -1)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5)  # [3,B,Y*X,G,N,D]
        bias = self._bias(rows, columns, qkv.dtype)
        # the fused kernels take [batch,heads,N,D], and a bias that is spread over the batch: one bias for all windows
        # has these as the batch; a bias per window has them beside the heads
        if self.shift_masks is None:
            qkv = qkv.flatten(1, 2)  # [3,B*Y*X,G,N,D]
        else:
            qkv, bias = qkv.flatten(2, 3), bias.flatten(0, 1)[None]  # [3,B,Y*X*G,N,D], [1,Y*X*G,N,N]
        q, k, v = qkv.unbind(0)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale)
        out = out.reshape(batch, rows, columns, self.num_heads, tokens, -1).transpose(3, 4)  # [B,Y,X,N,G,D]
        return self.proj_drop(self.proj(out.flatten(4)))


class SwinBlock(Recomputable):
    """Window attention and an MLP, both residual and normalised before (sec. 3.2, eq. 3)."""

    def __init__(
        self, channels: int, *, window: int, shift: int, mlp_ratio: float, drop: float, drop_path: float, **attention
    ):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, window=window, shift=shift, drop=drop, **attention)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, int(channels * mlp_ratio), drop=drop)

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window)  # zeros take part as tokens, as published
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        x = from_windows(self.attn(to_windows(x, self.window)), self.window)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), dims=(1, 2))
        return x[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:  # [B,H,W,C]
        x = x + self.drop_path(self._attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Map each 2x2 tokens [B,H,W,C] to one of twice the channels [B,ceil(H/2),ceil(W/2),2*C] (sec. 3.1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, 2)
        # the published order of the four: down a column, then the next one
        corners = [x[:, y::2, z::2] for z in (0, 1) for y in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Stage(nn.Module):
    """Blocks, every second one with shifted windows, and the merging of patches that follows them."""

    def __init__(self, channels: int, drop_paths: Sequence[float], *, window: int, merges: bool, **block):
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(channels, window=window, shift=window // 2 if i % 2 else 0, drop_path=p, **block)
            for i, p in enumerate(drop_paths)
        )
        self.downsample = PatchMerging(channels) if merges else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class PatchEmbed(nn.Module):
    """Map each square of an image [B,C,h,w], padded to whole squares, to a token [B,H,W,C']."""

    def __init__(self, patch: int, in_channels: int, channels: int, *, norm: bool):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, channels, patch, stride=patch)
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class SwinTransformer(nn.Module):
    """Maps {"res2": [B,C,h/4,w/4], ...} of an image [B,3,h,w] of any size, for the names in ``out_features``.

    channels           of the first stage; doubled with every stage
    depths, num_heads  per stage
    window             edge of a window, in tokens; every second block shifts them by half of it
    drop_path          stochastic depth: grows linearly from 0 at the first block to this at the last
    pretrain_size      image edge whose absolute position embeddings are kept; None: no such embedding
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        patch: int = 4,
        channels: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        pretrain_size: int | None = None,
        patch_norm: bool = True,
        out_features: Sequence[str] = STAGES,
    ):
        super().__init__()
        check_stages("SWIN", channels, depths, num_heads, out_features)
        if window < 1:
            raise UserError(f"MODEL.SWIN.WINDOW_SIZE is {window}: expected at least 1.")
        self.patch_embed = PatchEmbed(patch, in_channels, channels, norm=patch_norm)
        self.absolute_pos_embed = None if pretrain_size is None else _positions(channels, pretrain_size // patch)
        self.pos_drop = nn.Dropout(drop)
        rates = iter(_linear(drop_path, sum(depths)))
        last = max(STAGES.index(f) for f in out_features)
        self.layers = nn.ModuleList()
        self._shapes: dict[str, ShapeSpec] = {}
        for index, name in enumerate(STAGES[: last + 1]):
            stage = Stage(
                channels * 2**index,
                [next(rates) for _ in range(depths[index])],
                num_heads=num_heads[index],
                window=window,
                merges=index < last,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop,
                attn_drop=attn_drop,
            )
            self.layers.append(stage)
            if name in out_features:
                self.add_module(f"norm{index}", nn.LayerNorm(channels * 2**index))
                self._shapes[name] = ShapeSpec(channels * 2**index, patch * 2**index)
        self.apply(init_linear)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return dict(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.patch_embed(x)  # [B,H,W,C]
        if self.absolute_pos_embed is not None:
            positions = F.interpolate(self.absolute_pos_embed, x.shape[1:3], mode="bicubic")
            x = x + positions.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        maps = {}
        for index, (name, stage) in enumerate(zip(STAGES, self.layers)):
            x = stage(x)
            if name in self._shapes:
                maps[name] = getattr(self, f"norm{index}")(x).permute(0, 3, 1, 2).contiguous()
            if stage.downsample is not None:
                x = stage.downsample(x)
        return maps


def _positions(channels: int, edge: int) -> nn.Parameter:
    """An embedding for each place of a square map [1,C,edge,edge]."""
    return nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, channels, edge, edge), std=0.02))


def _linear(end: float, count: int) -> list[float]:
    """``count`` values from 0 to ``end``."""
    return [end * i / max(count - 1, 1) for i in range(count)]
