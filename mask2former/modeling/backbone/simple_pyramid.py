"""Maps of four strides from the one map of a plain transformer (ViTDet: Li et al., ECCV 2022, sec. 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from timm.layers import LayerNorm2d
from torch import Tensor, nn

# N batch, C channels in, D channels out, h w size of the given map


class SimpleFeaturePyramid(nn.Module):
    """Maps a map [N,C,h,w] of one stride to {"res2": [N,D,..], ...}, each made from it alone.

    in_channels   C
    stride        of the given map; all strides are powers of two
    strides       name -> stride of each map wanted
    out_channels  D, the same for all maps

    Finer maps come from transposed convolutions that double the size and halve the channels, coarser ones from
    max-pooling; a 1x1 and a 3x3 convolution, each with a LayerNorm over channels, follow.
    """

    # 256 as in ViTDet's detectors; the pixel decoder projects all maps to its own width anyway
    def __init__(self, in_channels: int, stride: int, strides: Mapping[str, int], out_channels: int = 256):
        super().__init__()
        self.out_channels = out_channels
        self.maps = nn.ModuleDict(
            {name: _branch(in_channels, stride, wanted, out_channels) for name, wanted in strides.items()}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: branch(x) for name, branch in self.maps.items()}


def _branch(channels: int, stride: int, wanted: int, out_channels: int) -> nn.Sequential:
    """From stride to wanted stride, then to the common channels."""
    layers: list[nn.Module] = []
    if wanted > stride:
        layers.append(nn.MaxPool2d(wanted // stride, ceil_mode=True))
    doublings = int(math.log2(stride // wanted)) if wanted < stride else 0
    for i in range(doublings):
        if i > 0:
            layers += [LayerNorm2d(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2))
        channels //= 2
    layers += [
        nn.Conv2d(channels, out_channels, kernel_size=1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    ]
    return nn.Sequential(*layers)
