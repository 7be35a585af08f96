"""ResNet with the tensor names and options of detectron2's (He et al., CVPR 2016; DeepLab's stem and dilation)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.backbone.bottleneck import Bottleneck, bottleneck, in_one_step
from mask2former.modeling.backbone.pooled_convolution import pooled_convolution
from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.layers import onednn
from mask2former.modeling.layers.conv import Conv2d, build_norm, freeze, init_msra
from mask2former.modeling.layers.recompute import Recomputable, recomputed
from mask2former.utils.errors import UserError

# N batch, C channels, H W image size

BLOCKS_PER_STAGE = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = ("res2", "res3", "res4", "res5")


def _conv(in_channels: int, out_channels: int, kernel: int, norm: str, **kwargs) -> Conv2d:
    padding = kwargs.pop("padding", kernel // 2)
    built = build_norm(norm, out_channels)
    return init_msra(
        Conv2d(in_channels, out_channels, kernel, padding=padding, bias=built is None, norm=built, **kwargs)
    )


class BasicStem(nn.Module):
    """7x7 convolution of stride 2, then max pooling of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__()
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.in_strips(x):
            return pooled_convolution(x, self.conv1.folded())
        return F.max_pool2d(F.relu_(self.conv1(x)), 3, stride=2, padding=1)

    def in_strips(self, x: Tensor) -> bool:
        """Whether its largest map is never made as a whole, nor kept for the backward pass."""
        wanted = x.requires_grad and torch.is_grad_enabled()
        return not wanted and onednn.usable(x) and x.numel() > 0 and self.conv1.only_folds(x)


class DeepLabStem(nn.Module):
    """Three 3x3 convolutions, the first of stride 2, then max pooling of stride 2."""

    def __init__(self, in_channels: int, out_channels: int, norm: str):
        super().__init__()
        half = out_channels // 2
        self.conv1 = _conv(in_channels, half, 3, norm, stride=2)
        self.conv2 = _conv(half, half, 3, norm)
        self.conv3 = _conv(half, out_channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(conv(x))
        return F.max_pool2d(x, 3, stride=2, padding=1)


STEMS = {"basic": BasicStem, "deeplab": DeepLabStem}


class BottleneckBlock(Recomputable):
    """1x1, 3x3, 1x1 with a shortcut; the stride sits in the first 1x1 (MSRA) or in the 3x3 (torchvision).

    Without gradients a block may write its result over its input: who keeps maps from hooks inside a stage copies them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        bottleneck_channels: int,
        *,
        stride: int,
        norm: str,
        num_groups: int,
        stride_in_1x1: bool,
        dilation: int,
    ):
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.shortcut = (
            _conv(in_channels, out_channels, 1, norm, stride=stride) if in_channels != out_channels else None
        )
        self.conv1 = _conv(in_channels, bottleneck_channels, 1, norm, stride=first)
        self.conv2 = _conv(
            bottleneck_channels,
            bottleneck_channels,
            3,
            norm,
            stride=second,
            padding=dilation,
            dilation=dilation,
            groups=num_groups,
        )
        self.conv3 = _conv(bottleneck_channels, out_channels, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        if in_one_step(x, self.convolutions()):
            return bottleneck(x, self.folded())
        total = x if self.shortcut is None else self.shortcut(x)
        return F.relu_(self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x))))).add_(total))

    def convolutions(self) -> list[Conv2d]:
        parts = (self.conv1, self.conv2, self.conv3, self.shortcut)
        return [conv for conv in parts if conv is not None]

    def folded(self) -> Bottleneck:
        """Its convolutions with their norms inside."""
        shortcut = None if self.shortcut is None else self.shortcut.folded()
        return Bottleneck(*(conv.folded() for conv in (self.conv1, self.conv2, self.conv3)), shortcut)


class ResNet(nn.Module):
    """Maps {"res2": [N,C,H/4,W/4], ...} of an image [N,3,H,W], for the names in ``out_features``.

    depth          50, 101 or 152
    stem           "basic" or "deeplab"
    norm           FrozenBN, BN, SyncBN
    dilations      of the 3x3 convolutions, per stage res2..res5; a dilated stage keeps the resolution before it
    res5_grid      factors on res5's dilation, one per block (DeepLab's multi-grid)
    freeze_at      0 trains everything; 1 freezes the stem; n the stem and stages up to res{n}
    """

    def __init__(
        self,
        *,
        depth: int = 50,
        in_channels: int = 3,
        stem: str = "basic",
        stem_channels: int = 64,
        res2_channels: int = 256,
        num_groups: int = 1,
        width_per_group: int = 64,
        norm: str = "FrozenBN",
        stride_in_1x1: bool = False,
        dilations: Sequence[int] = (1, 1, 1, 1),
        res5_grid: Sequence[int] = (1, 1, 1),
        out_features: Sequence[str] = STAGES,
        freeze_at: int = 0,
    ):
        super().__init__()
        _check(depth, stem, out_features, res5_grid)
        self.out_features = tuple(out_features)
        self.stem = STEMS[stem](in_channels, stem_channels, norm)
        self._shapes: dict[str, ShapeSpec] = {}
        stride, channels, width = 4, stem_channels, num_groups * width_per_group
        last = max(STAGES.index(f) for f in out_features)
        for index, name in enumerate(STAGES[: last + 1]):
            dilation = dilations[index]
            first_stride = 1 if index == 0 or dilation > 1 else 2
            grid = res5_grid if name == "res5" else (1,) * BLOCKS_PER_STAGE[depth][index]
            out_channels = res2_channels * 2**index
            blocks = []
            for block, factor in zip(range(BLOCKS_PER_STAGE[depth][index]), grid, strict=True):
                blocks.append(
                    BottleneckBlock(
                        channels,
                        out_channels,
                        width * 2**index,
                        stride=first_stride if block == 0 else 1,
                        norm=norm,
                        num_groups=num_groups,
                        stride_in_1x1=stride_in_1x1,
                        dilation=dilation * factor,
                    )
                )
                channels = out_channels
            self.add_module(name, nn.Sequential(*blocks))
            stride *= first_stride
            self._shapes[name] = ShapeSpec(out_channels, stride)
        self._freeze(freeze_at)

    def _freeze(self, freeze_at: int) -> None:
        for index, name in enumerate(("stem", *self._shapes), start=1):
            if freeze_at >= index:
                self.add_module(name, freeze(getattr(self, name)))

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: self._shapes[name] for name in self.out_features}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        in_strips = isinstance(self.stem, BasicStem) and self.stem.in_strips(x)
        x = self.stem(x) if in_strips else recomputed(self.stem, x)  # cheap beside the size of its map
        maps = {}
        for name in self._shapes:
            x = getattr(self, name)(x)
            if name in self.out_features:
                maps[name] = x
        return maps


def _check(depth: int, stem: str, out_features: Sequence[str], res5_grid: Sequence[int]) -> None:
    if depth not in BLOCKS_PER_STAGE:
        raise UserError(f"MODEL.RESNETS.DEPTH is {depth}: expected one of {sorted(BLOCKS_PER_STAGE)}.")
    if stem not in STEMS:
        raise UserError(f"MODEL.RESNETS.STEM_TYPE is '{stem}': expected one of {sorted(STEMS)}.")
    if len(res5_grid) != 3:
        raise UserError(
            f"MODEL.RESNETS.RES5_MULTI_GRID is {list(res5_grid)}: expected 3 values, one per block of res5."
        )
    unknown = [f for f in out_features if f not in STAGES]
    if unknown or not out_features:
        raise UserError(f"MODEL.RESNETS.OUT_FEATURES is {list(out_features)}: expected a choice of {list(STAGES)}.")
