"""Pixel decoders of MaskFormer: a light FPN, and one with a transformer encoder on its coarsest map.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 3.3 and 4.1 (FPN: Lin et al., CVPR 2017; encoder: Carion et al., DETR).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.layers.conv import conv_norm, init_xavier
from mask2former.modeling.layers.detr import Transformer
from mask2former.modeling.layers.group_norm import remade
from mask2former.modeling.layers.position_encoding import sine_position_encoding

# N images (batch x frames), C channels, M mask channels, h w map size


class BasePixelDecoder(nn.Module):
    """Backbone maps -> mask features [N,M,h,w] at the stride of the finest map; no decoder memory.

    inputs         backbone maps by name, any order
    channels       width of the decoder's maps; mask_channels of the mask features
    norm           of its convolutions
    """

    num_memory_levels = 0

    def __init__(self, inputs: dict[str, ShapeSpec], *, channels: int, mask_channels: int, norm: str):
        super().__init__()
        self.in_features = sorted(inputs, key=lambda name: inputs[name].stride)  # finest first
        self.channels, self.mask_channels = channels, mask_channels
        smooth = {"norm": norm, "activation": F.relu_}
        *finer, coarsest = self.in_features
        for number, name in enumerate(finer, 1):  # published names count from the finest map
            self.add_module(
                f"adapter_{number}", conv_norm(inputs[name].channels, channels, 1, norm=norm, activation=None)
            )
            self.add_module(f"layer_{number}", conv_norm(channels, channels, 3, **smooth))
        first = self._coarsest_channels(inputs[coarsest])
        self.add_module(f"layer_{len(inputs)}", conv_norm(first, channels, 3, **smooth))
        self.mask_features = init_xavier(nn.Conv2d(channels, mask_channels, 3, padding=1))

    def _coarsest_channels(self, coarsest: ShapeSpec) -> int:
        """Channels of the map that the first 3x3 convolution takes."""
        return coarsest.channels

    def forward(self, maps: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        return self._fuse(maps, maps[self.in_features[-1]]), []

    def _fuse(self, maps: dict[str, Tensor], coarsest: Tensor) -> Tensor:
        """From the coarsest map down: each finer one is projected and gets the sum so far."""
        count = len(self.in_features)
        out = getattr(self, f"layer_{count}")(coarsest)
        for number in range(count - 1, 0, -1):
            lateral = getattr(self, f"adapter_{number}")(maps[self.in_features[number - 1]])
            coarser = F.interpolate(out, size=lateral.shape[-2:], mode="nearest")
            out = getattr(self, f"layer_{number}")(lateral.add_(coarser))
        with remade(out):
            return self.mask_features(out)


class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """The same with a transformer encoder on the coarsest map, whose output is the decoder memory, one map [N,C,h,w].

    num_layers, num_heads, hidden_channels, dropout, pre_norm   of the encoder
    """

    num_memory_levels = 1

    def __init__(
        self,
        inputs: dict[str, ShapeSpec],
        *,
        channels: int,
        mask_channels: int,
        norm: str,
        num_layers: int,
        num_heads: int,
        hidden_channels: int,
        dropout: float,
        pre_norm: bool,
    ):
        super().__init__(inputs, channels=channels, mask_channels=mask_channels, norm=norm)
        self.input_proj = init_xavier(nn.Conv2d(inputs[self.in_features[-1]].channels, channels, 1))
        self.transformer = Transformer(
            channels,
            encoder_layers=num_layers,
            decoder_layers=0,
            pre_norm=pre_norm,
            num_heads=num_heads,
            hidden_channels=hidden_channels,
            dropout=dropout,
        )

    def _coarsest_channels(self, coarsest: ShapeSpec) -> int:
        return self.channels

    def forward(self, maps: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
        projected = self.input_proj(maps[self.in_features[-1]])
        size = projected.shape[-2:]
        encoding = sine_position_encoding(
            (1, *size), self.channels, temporal=False, device=projected.device, dtype=projected.dtype
        )
        tokens = self.transformer.encoder(projected.flatten(2).transpose(1, 2), encoding.flatten(1).t())
        memory = tokens.unflatten(1, size).permute(0, 3, 1, 2)
        return self._fuse(maps, memory), [memory]
