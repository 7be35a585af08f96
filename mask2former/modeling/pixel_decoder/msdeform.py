"""Pixel decoder of Mask2Former: deformable attention over three levels, then one FPN step to stride 4.

Cheng et al., CVPR 2022, sec. 3.2; deformable attention: Zhu et al., ICLR 2021.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.layers.conv import Conv2d, build_norm, conv_norm, init_xavier
from mask2former.modeling.layers.group_norm import GroupNorm, remade
from mask2former.modeling.layers.linear import Linear, feed_forward, linears_of_sum
from mask2former.modeling.layers.plain import is_plain
from mask2former.modeling.layers.position_encoding import sine_position_encoding
from mask2former.modeling.layers.recompute import Recomputable, recomputed
from mask2former.ops import ms_deform_attn_raw
from mask2former.utils.errors import UserError

# N images (batch x frames), S pixels of all levels, C channels, H heads, L levels, P points


class MSDeformAttn(nn.Module):
    """Each pixel gathers values from P points on each of L levels, around its own place."""

    def __init__(self, channels: int, num_levels: int, num_heads: int, num_points: int):
        super().__init__()
        self.num_levels, self.num_heads, self.num_points = num_levels, num_heads, num_points
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = Linear(channels, samples * 2)
        self.attention_weights = Linear(channels, samples)
        self.value_proj = Linear(channels, channels)
        self.output_proj = Linear(channels, channels)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Head h looks along the angle 2 pi h / H, point p at p + 1 pixels; all points weigh the same."""
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for tensor in (self.sampling_offsets.weight, *self.attention_weights.parameters()):
            nn.init.zeros_(tensor)
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], 1)
        direction = direction / direction.abs().amax(1, keepdim=True)
        distance = torch.arange(1, self.num_points + 1)
        offsets = direction[:, None, None] * distance[:, None]  # [H,1,P,2]
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).flatten())

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, pixels: Tensor, shapes: Tensor) -> Tensor:
        """x [N,S,C] and its position [S,C], which tells where to look, not what is found there -> [N,S,C].

        reference [S,2] as (x, y) in [0,1]; pixels [L,2] each level's (w, h), like reference; shapes [L,2] its (h, w),
        int64 on the host.
        """
        heads, levels, points = self.num_heads, self.num_levels, self.num_points
        offsets, logits = linears_of_sum(x, position, self.sampling_offsets, self.attention_weights)
        offsets = offsets.unflatten(2, (heads, levels, points, 2))
        logits = logits.unflatten(2, (heads, levels, points))
        value = self.value_proj(x).unflatten(2, (heads, -1))
        out = ms_deform_attn_raw(value, shapes, reference, pixels, offsets, logits)
        return self.output_proj(out)


class EncoderLayer(Recomputable):
    """Deformable self-attention and a feed-forward net, each followed by its norm."""

    def __init__(
        self, channels: int, hidden_channels: int, dropout: float, num_levels: int, num_heads: int, num_points: int
    ):
        super().__init__()
        self.self_attn = MSDeformAttn(channels, num_levels, num_heads, num_points)
        self.norm1 = nn.LayerNorm(channels)
        self.linear1 = Linear(channels, hidden_channels)
        self.linear2 = Linear(hidden_channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.drop = nn.Dropout(dropout)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, x: Tensor, position: Tensor, reference: Tensor, pixels: Tensor, shapes: Tensor) -> Tensor:
        x = self.norm1(x + self.drop(self.self_attn(x, position, reference, pixels, shapes)))
        # the hidden maps of all layers would be the largest part of what is kept for the backward pass
        change = feed_forward(x, self.linear1, self.linear2, F.relu, self.drop, keep_hidden=False)
        return self.norm2(x + self.drop(change))


class _Encoder(nn.Module):
    """Holds the layers under their published name."""

    def __init__(self, layers: list[EncoderLayer]):
        super().__init__()
        self.layers = nn.ModuleList(layers)


class _Transformer(nn.Module):
    """Holds encoder and level embeddings under their published names."""

    def __init__(self, layers: list[EncoderLayer], num_levels: int, channels: int):
        super().__init__()
        self.encoder = _Encoder(layers)
        self.level_embed = nn.Parameter(torch.randn(num_levels, channels))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Maps [N,C,h,w], coarsest first, attend to each other; same shapes out."""
        sizes = [tuple(m.shape[-2:]) for m in maps]
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)
        like = {"device": x.device, "dtype": x.dtype}
        encodings = [sine_position_encoding((1, *s), x.shape[2], temporal=False, **like).flatten(1).t() for s in sizes]
        position = torch.cat([e + level for e, level in zip(encodings, self.level_embed)])
        reference = torch.cat([pixel_centres(*s, device=x.device, dtype=x.dtype) for s in sizes])
        shapes = torch.tensor(sizes)  # on the host, where the op reads them
        pixels = shapes.flip(1).to(reference.dtype).to(reference.device, non_blocking=True)
        for layer in self.encoder.layers:
            x = layer(x, position, reference, pixels, shapes)
        parts = x.split([h * w for h, w in sizes], 1)
        return [p.unflatten(1, s).permute(0, 3, 1, 2) for p, s in zip(parts, sizes)]


def pixel_centres(h: int, w: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(x, y) in [0,1] of every pixel's centre, in row order, [h*w,2]; at least float32."""
    dtype = torch.promote_types(dtype, torch.float32)
    y = (torch.arange(h, device=device, dtype=dtype) + 0.5) / h
    x = (torch.arange(w, device=device, dtype=dtype) + 0.5) / w
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)], 2).flatten(0, 1)


class MSDeformAttnPixelDecoder(nn.Module):
    """Backbone maps -> mask features [N,M,h,w] at ``common_stride`` and decoder memory, three maps coarsest first.

    inputs              backbone maps by name, any order
    encoder_in          names of the maps that enter the deformable encoder
    channels            width of the encoder and the memory; mask_channels of the mask features
    common_stride       stride of the mask features; finer maps than the encoder's join by FPN steps down to it
    """

    num_memory_levels = 3  # always three (Mask2Former, sec. 3.2.1)

    def __init__(
        self,
        inputs: dict[str, ShapeSpec],
        *,
        encoder_in: list[str],
        channels: int,
        mask_channels: int,
        norm: str,
        common_stride: int,
        num_layers: int,
        num_heads: int,
        num_points: int,
        hidden_channels: int,
        dropout: float,
    ):
        super().__init__()
        ordered = sorted(inputs, key=lambda name: inputs[name].stride)
        # coarsest first; of two maps of one stride (dilated stages) the later one counts as coarser, as published
        self.encoder_in = [name for name in ordered if name in encoder_in][::-1]
        finest = inputs[self.encoder_in[-1]].stride
        self.lateral_in = [n for n in ordered if common_stride <= inputs[n].stride < finest][::-1]
        self._check(inputs, common_stride, channels, num_heads, num_layers)
        self.channels, self.mask_channels = channels, mask_channels
        self.input_proj = nn.ModuleList(_project(inputs[name].channels, channels) for name in self.encoder_in)
        levels = len(self.encoder_in)
        layers = [
            EncoderLayer(channels, hidden_channels, dropout, levels, num_heads, num_points) for _ in range(num_layers)
        ]
        self.transformer = _Transformer(layers, levels, channels)
        self.mask_features = init_xavier(nn.Conv2d(channels, mask_channels, 1))
        for name in self.lateral_in:
            lateral = conv_norm(inputs[name].channels, channels, 1, norm=norm, activation=None)
            smooth = conv_norm(channels, channels, 3, norm=norm, activation=F.relu_)
            number = ordered.index(name) + 1  # published names count from the finest map
            self.add_module(f"adapter_{number}", lateral)
            self.add_module(f"layer_{number}", smooth)
        self._numbers = [ordered.index(name) + 1 for name in self.lateral_in]

    def _check(
        self, inputs: dict[str, ShapeSpec], common_stride: int, channels: int, num_heads: int, num_layers: int
    ) -> None:
        used = [*self.encoder_in, *self.lateral_in]
        strides = [inputs[name].stride for name in used]
        if min(strides) != common_stride:
            raise UserError(
                f"the finest map in MODEL.SEM_SEG_HEAD.IN_FEATURES has stride {min(strides)}, but COMMON_STRIDE is "
                f"{common_stride}: name a map of that stride, or set COMMON_STRIDE to {min(strides)}."
            )
        if len(used) < self.num_memory_levels:
            raise UserError(
                f"the decoder attends to {self.num_memory_levels} maps, but MODEL.SEM_SEG_HEAD.IN_FEATURES and "
                f"DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES give {used}: name more maps."
            )
        if channels % num_heads or channels % 4:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {channels}: expected a multiple of 4 and of "
                f"DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS, {num_heads}."
            )
        if num_layers < 1:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS is {num_layers}: MSDeformAttnPixelDecoder needs at least 1."
            )

    def forward(self, maps: dict[str, Tensor], project: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Without ``project`` the mask features [N,C,h,w] lack their last layer, the 1x1 convolution mask_features."""
        projected = [proj(maps[name]) for proj, name in zip(self.input_proj, self.encoder_in)]
        out = self.transformer(projected)
        for name, number in zip(self.lateral_in, self._numbers):
            total = _lateral_sum(getattr(self, f"adapter_{number}"), maps[name], out[-1])
            with remade(total):
                out.append(getattr(self, f"layer_{number}")(total))
        if not project:
            return out[-1], out[: self.num_memory_levels]
        with remade(out[-1]):
            return self.mask_features(out[-1]), out[: self.num_memory_levels]


def _lateral_sum(adapter: Conv2d, x: Tensor, coarser: Tensor) -> Tensor:
    """``adapter(x)`` plus the coarser map resized to it."""
    norm = adapter.norm
    plain = type(adapter) is Conv2d and type(norm) is GroupNorm and is_plain(adapter) and is_plain(norm)
    if plain and adapter.activation is None and norm.compiled(x, coarser):
        return norm(nn.Conv2d.forward(adapter, x), coarser=coarser)
    lateral = recomputed(adapter, x)  # cheap beside the size of its maps
    return lateral.add_(F.interpolate(coarser, size=lateral.shape[-2:], mode="bilinear", align_corners=False))


def _project(in_channels: int, channels: int) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, 1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, build_norm("GN", channels))
