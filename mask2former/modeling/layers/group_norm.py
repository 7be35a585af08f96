"""Group norm that is accurate and fast on the CPU for channels-last maps, together with what follows it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mask2former.modeling.layers import onednn
from mask2former.ops import group_norm
from mask2former.utils.memory import empty_large

# N images, C channels, G groups, H W map size, h w size of a coarser map

_SQUARES = 1 << 19  # made at a time, so that they stay in the cache


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm that is accurate, and fast on the CPU, for channels-last maps too; it may overwrite its input.

    torch's kernel for them takes E[x^2] - E[x]^2 for the variance, with which 8 of 24 bits can be lost.
    """

    def forward(self, x: Tensor, relu: bool = False, coarser: Tensor | None = None) -> Tensor:
        """x [N,C,H,W] normalised; then ``F.relu``, or plus ``coarser`` [N,C,h,w] resized to it bilinearly."""
        if relu and coarser is not None:
            raise ValueError("relu and coarser are two things to do with the result: give one")
        if self.compiled(x, coarser):
            arguments = x, self.weight, self.bias, coarser, self.num_groups, self.eps, relu
            if torch.is_grad_enabled():
                return _GroupNorm.apply(*arguments)
            return _normalised(x, group_norm.statistics(x, self.num_groups, self.eps), *arguments[1:4], relu, out=x)
        x = self._plain(x)
        if coarser is not None:
            x = x.add_(F.interpolate(coarser, size=x.shape[-2:], mode="bilinear", align_corners=False))
        return F.relu_(x) if relu else x

    def compiled(self, x: Tensor, coarser: Tensor | None = None) -> bool:
        """Whether compiled code takes such maps."""
        others = (self.weight, self.bias) if coarser is None else (self.weight, self.bias, coarser)
        return not torch.is_autocast_enabled("cpu") and group_norm.served(x, *others)

    def _plain(self, x: Tensor) -> Tensor:
        """Without compiled code. The result does not depend on what is subtracted from a group, nor its gradient."""
        ours = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.numel()
        if not ours or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        x = x.sub_(self._per_group(x.detach().mean((2, 3))))
        if torch.is_grad_enabled():
            return super().forward(x)
        rows = max(1, _SQUARES // x[:, :, 0].numel())
        squares = sum(part.square().sum((2, 3)) for part in x.split(rows, 2))
        deviation = self._per_group(squares / x[0, 0].numel()).add(self.eps).sqrt()
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None] / deviation, out=x)

    def _per_group(self, values: Tensor) -> Tensor:
        """The mean of each group of values [N,C], for each of its channels, [N,C,1,1]."""
        mean = values.unflatten(1, (self.num_groups, -1)).mean(2)
        return mean.repeat_interleave(self.num_channels // self.num_groups, 1)[:, :, None, None]


def remade(x: Tensor) -> AbstractContextManager:
    """Where it is on, functions keep of ``x`` for their backward pass how a `GroupNorm` made it, if one did.

    A norm keeps its input. Its result is made of that in one pass, which is little beside a convolution's.
    """
    norm = None if onednn.traced() else x.grad_fn
    if getattr(norm, "_forward_cls", None) is not _GroupNorm:
        return nullcontext()
    place, shape = x.data_ptr(), x.shape  # not x, which would be kept

    def pack(tensor: Tensor) -> Tensor | _Recipe:
        return _Recipe(norm) if tensor.data_ptr() == place and tensor.shape == shape else tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept() if isinstance(kept, _Recipe) else kept)


class _Recipe:
    """How to make a norm's result again."""

    def __init__(self, norm: torch.autograd.graph.Node):
        self.norm = norm

    def __call__(self) -> Tensor:
        return _normalised(*self.norm.saved_tensors, self.norm.relu)


class _GroupNorm(torch.autograd.Function):
    """Keeps its input alone."""

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, coarser: Tensor | None, groups: int, eps: float, relu: bool
    ) -> Tensor:
        of_groups = group_norm.statistics(x, groups, eps)
        ctx.save_for_backward(x, of_groups, weight, bias, coarser)
        ctx.relu = relu
        return _normalised(*ctx.to_save, relu)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, of_groups, weight, bias, coarser = ctx.saved_tensors
        of_coarser = None
        if ctx.needs_input_grad[3]:
            sizes = grad.shape[2:], coarser.shape
            of_coarser = torch.ops.aten.upsample_bilinear2d_backward(grad, *sizes, False, None, None)
        grads = None, None, None
        if any(ctx.needs_input_grad[:3]):
            grads = group_norm.backward(grad, x, of_groups, weight, bias, relu=ctx.relu, out=_map_like(x))
        return *grads, of_coarser, None, None, None


def _normalised(
    x: Tensor,
    of_groups: Tensor,
    weight: Tensor,
    bias: Tensor,
    coarser: Tensor | None,
    relu: bool,
    out: Tensor | None = None,
) -> Tensor:
    """x [N,C,H,W] normalised by the statistics of its groups [N,G,2]; see `GroupNorm.forward`."""
    out = _map_like(x) if out is None else out
    return group_norm.apply(x, of_groups, weight, bias, relu=relu, coarser=coarser, out=out)


def _map_like(x: Tensor) -> Tensor:
    """Room for maps of the same size, channels-last."""
    return empty_large(x.shape, x.dtype, x.device, torch.channels_last)
