"""The convolution that layers of ours come down to: both passes as plain functions, outside of autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.layers import onednn
from mask2former.ops import winograd

# N batch, C channels in, D channels out, H W map size, h w size of the result, k kernel size

Pair = tuple[int, int]


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    scale: Tensor | None = None,
    relu: bool = False,
    total: Tensor | None = None,
    overwrite: bool = False,
) -> Tensor:
    """``conv2d(x, scale * weight, bias) + total``, negative values set to zero where ``relu``; [N,D,h,w].

    On the CPU all in the kernel of the convolution: no map is gone over again. oneDNN's ReLU makes zeros of NaNs.

    Args:
        x: [N,C,H,W]; weight [D,C/groups,k,k]; bias [D].
        scale: [D], of each channel of the result.
        total: [N,D,h,w].
        overwrite: the result may be written over total.
    """
    if total is None and winograd.usable(x, weight, stride, padding, dilation, groups):
        return winograd.forward(x, weight, bias, relu, scale)
    if scale is not None:
        weight = weight * scale[:, None, None, None]
    geometry = padding, stride, dilation, groups
    if (total is not None or relu) and in_kernel(x) and (total is None or _is_channels_last(total)):
        kernels, after = torch.ops.mkldnn, "relu" if relu else None
        if total is None:
            return kernels._convolution_pointwise(x, weight, bias, *geometry, after, [], "")
        if overwrite:
            return kernels._convolution_pointwise_(total, x, weight, bias, *geometry, "add", 1.0, after, [], "")
        return kernels._convolution_pointwise(x, total, weight, bias, *geometry, "add", 1.0, after, [], "")
    out = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if total is not None:
        out = out.add_(total)
    return out.relu_() if relu else out


def in_kernel(x: Tensor) -> bool:
    """Whether sums and ReLU of a convolution of ``x`` go into its kernel."""
    return onednn.usable(x) and x.numel() > 0 and _is_channels_last(x)


def convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    wanted: tuple[bool, bool, bool],
    scale: Tensor | None = None,
    onto: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias as far as wanted, given that of ``convolution``'s sum [N,D,h,w].

    Args:
        wanted: of x, weight, bias.
        onto: [N,C,H,W]; the gradient of x is added to it, which overwrites it.
    """
    geometry = stride, padding, dilation, groups
    if not any(wanted):
        return None, None, None
    if winograd.usable(x, weight, *geometry):
        return _winograd_backward(grad, x, weight, wanted, scale, onto)
    if scale is None:
        return _backward(grad, x, weight, *geometry, wanted, onto)
    if grad.numel() < weight.numel() and not wanted[2]:  # the smaller of the two is scaled
        return _backward(grad * scale[:, None, None], x, weight, *geometry, wanted, onto)
    scale = scale[:, None, None, None]
    x_grad, weight_grad, bias_grad = _backward(grad, x, weight * scale, *geometry, wanted, onto)
    return x_grad, None if weight_grad is None else weight_grad.mul_(scale), bias_grad


def _winograd_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    wanted: tuple[bool, bool, bool],
    scale: Tensor | None,
    onto: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of `convolution_backward` by Winograd's filtering."""
    grad = grad.contiguous(memory_format=torch.channels_last)
    x_grad = winograd.input_grad(grad, weight, scale) if wanted[0] else None
    if wanted[0] and onto is not None:
        x_grad = onto.add_(x_grad)
    weight_grad = winograd.weight_grad(grad, x, scale) if wanted[1] else None
    return x_grad, weight_grad, grad.sum((0, 2, 3)) if wanted[2] else None


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    wanted: Sequence[bool],
    onto: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of weights without a scale. What products do better on the CPU comes first, then the rest."""
    x_grad = weight_grad = None
    wanted, one_by_one = list(wanted), weight.shape[2:] == (1, 1) and (stride, padding, groups) == ((1, 1), (0, 0), 1)
    if in_kernel(x) and _is_channels_last(grad):
        if wanted[0] and one_by_one and onto is not None and _is_channels_last(onto):
            x_grad = onto
            _rows(onto).addmm_(_rows(grad), weight.flatten(1))  # begins with what is there
            wanted[0] = False
        if wanted[1] and groups == 1 and grad[:, 0].numel() < len(weight):
            weight_grad = _weight_grad(grad, x, weight.shape[2:], stride, padding, dilation)
            wanted[1] = False
    found = (None,) * 3
    if any(wanted):
        found = torch.ops.aten.convolution_backward(
            *(grad, x, weight, [len(weight)], stride, padding, dilation, False, (0, 0), groups, wanted)
        )
    if wanted[0]:
        x_grad = found[0] if onto is None else onto.add_(found[0])
    return x_grad, found[1] if wanted[1] else weight_grad, found[2]


def _weight_grad(grad: Tensor, x: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """[D,C,k,k] in one product over the pixels of the result. It comes channels last, as the weights are.

    oneDNN's comes in another layout. Where pixels are few, to convert it takes a third as long as to compute it.
    """
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    for axis in (0, 1):
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        x = x.unfold(1 + axis, reach, stride[axis])[..., :: dilation[axis]]
    columns = x.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)  # [N*h*w,k*k*C]
    out = torch.mm(_rows(grad).t(), columns, out=x.new_empty(grad.shape[1], columns.shape[1]))
    return out.view(len(out), *kernel, -1).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """The pixels [N*H*W,C] of channels-last maps, in the same memory."""
    return maps.permute(0, 2, 3, 1).view(-1, maps.shape[1])


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)
