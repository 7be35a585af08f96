"""A bottleneck block with fixed norms in one step of autograd: for the CPU.

Norms are in the weights, sums in the kernels of the convolutions. In the backward pass the gradient of a map
is made once: ReLU and the other branch's share are worked into it where it lies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.modeling.layers.conv import Conv2d
from mask2former.modeling.layers.convolution import in_kernel
from mask2former.modeling.layers.folded import Folded

# N batch, C channels, H W map size


class Bottleneck(NamedTuple):
    """relu(third(relu(second(relu(first(x))))) + shortcut(x)), the shortcut x itself where there is none."""

    first: Folded
    second: Folded
    third: Folded
    shortcut: Folded | None


def in_one_step(x: Tensor, convolutions: Iterable[Conv2d]) -> bool:
    """Whether `bottleneck` takes x [N,C,H,W] and these: channels last on a CPU, no more than folded convolutions."""
    return in_kernel(x) and all(conv.only_folds(x) for conv in convolutions)


def bottleneck(x: Tensor, block: Bottleneck) -> Tensor:
    """The block's result; without gradients it may be written over ``x`` [N,C,H,W]."""
    if not torch.is_grad_enabled():
        return _result(x, block)
    geometries = [None if conv is None else conv.geometry for conv in block]
    tensors = itertools.chain.from_iterable((None,) * 3 if conv is None else conv[:3] for conv in block)
    return _Bottleneck.apply(x, geometries, *tensors)


def _result(x: Tensor, block: Bottleneck) -> Tensor:
    """Written over x or the shortcut. ReLU is in the kernels."""
    inner = block.second(block.first(x, relu=True), relu=True)
    total = x if block.shortcut is None else block.shortcut(x)
    return block.third(inner, relu=True, total=total, overwrite=True)


def _maps(x: Tensor, block: Bottleneck) -> tuple[Tensor, Tensor, Tensor]:
    """The block's three maps after ReLU, which is not in the kernels: it leaves a NaN, by which training ends."""
    first = block.first(x).relu_()
    second = block.second(first).relu_()
    if block.shortcut is None:
        return first, second, block.third(second, total=x).relu_()
    return first, second, block.third(second, total=block.shortcut(x), overwrite=True).relu_()


def _backward(
    grad: Tensor, maps: Sequence[Tensor], block: Bottleneck, wanted_x: bool, wanted: Sequence[bool]
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Gradients of a block's input and of its four weights, as far as wanted.

    Args:
        grad: of its result before ReLU; is overwritten.
        maps: the input, and what comes out of first and second.
    """
    x, first, second = maps
    wanted_first = wanted_x or wanted[0]
    wanted_second = wanted_first or wanted[1]
    inner, third_grad, _ = block.third.backward(grad, second, (wanted_second, wanted[2], False))
    inner, second_grad, _ = block.second.backward(_masked_(inner, second), first, (wanted_first, wanted[1], False))
    shortcut_grad = None
    if block.shortcut is not None:
        grad, shortcut_grad, _ = block.shortcut.backward(grad, x, (wanted_x, wanted[3], False))
    grad, first_grad, _ = block.first.backward(_masked_(inner, first), x, (wanted_x, wanted[0], False), onto=grad)
    return grad, [first_grad, second_grad, third_grad, shortcut_grad]


def _masked_(grad: Tensor | None, y: Tensor) -> Tensor | None:
    """The gradient before a ReLU from that of its result y, in the same memory."""
    return None if grad is None else torch.ops.aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)


class _Bottleneck(torch.autograd.Function):
    """Keeps its input and three maps after ReLU, the last of which is the result."""

    @staticmethod
    def forward(ctx, x: Tensor, geometries: list[tuple | None], *tensors: Tensor | None) -> Tensor:
        maps = _maps(x, _block(geometries, tensors))
        ctx.geometries = geometries
        ctx.save_for_backward(x, *maps, *tensors)
        return maps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second, out, *tensors = ctx.saved_tensors
        wanted_x, _, *wanted = ctx.needs_input_grad
        # the gradient is not ours to overwrite; what comes of it is
        grad = torch.ops.aten.threshold_backward(grad.contiguous(memory_format=torch.channels_last), out, 0)
        block = _block(ctx.geometries, tensors)
        x_grad, weight_grads = _backward(grad, (x, first, second), block, wanted_x, wanted[::3])
        return x_grad, None, *itertools.chain.from_iterable((g, None, None) for g in weight_grads)


def _block(geometries: list[tuple | None], tensors: Sequence[Tensor | None]) -> Bottleneck:
    """From each convolution's geometry and its weight, scale and shift; None where there is no shortcut."""
    return Bottleneck(
        *(
            None if geometry is None else Folded(*tensors[3 * i : 3 * i + 3], *geometry)
            for i, geometry in enumerate(geometries)
        )
    )
