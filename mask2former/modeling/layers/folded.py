"""A convolution with what a fixed norm multiplies and adds inside it, and its step of autograd."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.modeling.layers.convolution import convolution, convolution_backward

# N batch, C channels in, D out, H W map size, k kernel size


class Folded(NamedTuple):
    """A convolution by ``scale * weight``, then ``+ shift``; weight [D,C,k,k], scale and shift [D] or None."""

    weight: Tensor
    scale: Tensor | None
    shift: Tensor | None
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def geometry(self) -> tuple:
        return self[3:]

    def __call__(self, x: Tensor, **after) -> Tensor:
        """Of x [N,C,H,W]; after: what follows, as in :func:`convolution`. Outside of autograd."""
        return convolution(x, self.weight, self.shift, *self.geometry, scale=self.scale, **after)

    def differentiable(self, x: Tensor) -> Tensor:
        """Of x [N,C,H,W], with gradients of x, weight and shift where they are asked for; none of scale."""
        return _Folded.apply(x, *self) if torch.is_grad_enabled() else self(x)

    def backward(
        self, grad: Tensor | None, x: Tensor, wanted: tuple[bool, bool, bool], onto: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Gradients of x, weight and shift as far as wanted; the rest as in :func:`convolution_backward`."""
        return convolution_backward(grad, x, self.weight, *self.geometry, wanted, scale=self.scale, onto=onto)


class _Folded(torch.autograd.Function):
    """Scales the weights again in the backward pass, as a ResNet-50's would be 94 MB to keep."""

    @staticmethod
    def forward(ctx, x: Tensor, *folded) -> Tensor:
        folded = Folded(*folded)
        ctx.save_for_backward(x, folded.weight, folded.scale)
        ctx.geometry = folded.geometry
        return folded(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        of_x, of_weight, _, of_shift = ctx.needs_input_grad[:4]
        folded = Folded(weight, scale, None, *ctx.geometry)
        x_grad, weight_grad, shift_grad = folded.backward(grad, x, (of_x, of_weight, of_shift))
        return x_grad, weight_grad, None, shift_grad, *[None] * 4
