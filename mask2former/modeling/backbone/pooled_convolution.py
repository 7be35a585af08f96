"""A stem's convolution, ReLU and max pooling, some rows after the other: for the CPU.

What the convolution makes is the largest map of a network and serves nothing but the pooling. Some of its rows at a
time stay in the cache, in both passes; the backward pass computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.modeling.layers.folded import Folded

# N batch, C channels in, D out, H W image size, h w after the convolution, r rows of a strip

_STRIP_BYTES = 4 << 20  # of the convolution's map at a time
_POOLING = {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)}


def pooled_convolution(x: Tensor, conv: Folded) -> Tensor:
    """``max_pool2d(relu(conv(x)), 3, stride=2, padding=1)`` of x [N,C,H,W], which no gradient is asked of."""
    if torch.is_grad_enabled():
        return _PooledConvolution.apply(x, *conv)
    return _forward(x, conv)


class _Strip(NamedTuple):
    rows: slice  # of the result
    x: Tensor  # what they depend on, [N,C,_,W]
    map: Tensor  # its convolution, [N,D,_,w]
    above: int  # rows that pooling the map gives before these


def _strips(x: Tensor, conv: Folded) -> Iterator[_Strip]:
    """The result's rows, some at a time, with what each depends on; x [N,C,H,W]."""
    (step, _), (border, side), kernel = conv.stride, conv.padding, conv.weight.shape[2]
    height, width = ((size + 2 * border - kernel) // step + 1 for size in x.shape[2:])
    pooled = (height + 1) // 2
    rows = max(1, _STRIP_BYTES // (2 * len(x) * len(conv.weight) * width * x.element_size()))
    x = F.pad(x, (0, 0, border, border)).contiguous(memory_format=torch.channels_last)
    weight = conv.weight * conv.scale[:, None, None, None]
    for first in range(0, pooled, rows):
        last = min(first + rows, pooled)
        start, end = max(0, 2 * first - 2), min(height, 2 * last)  # begins with a whole step of the pooling
        part = x[:, :, start * step : (end - 1) * step + kernel]
        made = F.conv2d(part, weight, conv.shift, step, (0, side))
        yield _Strip(slice(first, last), part, made, 1 if first else 0)


def _forward(x: Tensor, conv: Folded) -> Tensor:
    parts = [F.max_pool2d(strip.map, **_POOLING)[:, :, strip.above :].relu_() for strip in _strips(x, conv)]
    return torch.cat(parts, 2)


class _PooledConvolution(torch.autograd.Function):
    """Keeps its input and its result."""

    @staticmethod
    def forward(ctx, x: Tensor, *conv) -> Tensor:
        conv = Folded(*conv)
        out = _forward(x, conv)
        ctx.geometry = conv.geometry
        ctx.save_for_backward(x, out, *conv[:3])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, out, *tensors = ctx.saved_tensors
        conv = Folded(*tensors, *ctx.geometry)
        # of strips, whose rows above and below are there
        inner = conv._replace(padding=(0, conv.padding[1]))
        total = torch.zeros_like(conv.weight)
        for rows, part, made, above in _strips(x, conv):
            pooled, chosen = torch.ops.aten.max_pool2d_with_indices(made, *_POOLING.values())
            pooled.zero_()[:, :, above:] = torch.ops.aten.threshold_backward(grad[:, :, rows], out[:, :, rows], 0)
            made_grad = torch.ops.aten.max_pool2d_with_indices_backward(
                pooled, made, *_POOLING.values(), (1, 1), False, chosen
            )
            total += inner.backward(made_grad, part, (False, True, False))[1]
        return None, total, *[None] * 6
