"""3x3 convolution of float32 maps on the CPU by Winograd's minimal filtering, and its gradients; ``csrc/winograd.cpp``.

F(2x2,3x3) of Lavin & Gray (CVPR 2016) takes 16 multiplications where the definition takes 36. The result is that of
``torch.nn.functional.conv2d(x, weight, bias, padding=1)`` but for two things:

* rounding: errors of maps are mostly smaller than those of oneDNN's direct kernels, those of the weights' gradient are
  one to two times theirs;
* a NaN or an infinity in x reaches, as NaN, every pixel of the 2x2 tiles that it has a part in: up to 4x4 pixels, of
  which 3x3 are the definition's.

What is not served (:func:`usable`) stays with torch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.ops.cpp import run, served

# N batch, H W map size, C channels of the input, K of the output

_LAST = torch.channels_last
_CHANNELS = 32  # C and K are multiples of it: two vectors of AVX-512
_PIXELS = 256  # of all maps; at 16x16 it takes 0.6 to 0.8 of torch's time, at 8x8 up to 1.4 (Zen 4, 32 to 512 channels)
_CAPABILITIES = ("AVX512", "AVX2")  # with narrower vectors it was not measured


def usable(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    dilation: tuple[int, ...],
    groups: int,
) -> bool:
    """Whether a convolution can be computed here, with its gradients, and is faster than by torch.

    That is one of 3x3 taps, stride 1 and a margin of 1, eagerly and without autocast, of float32 maps on the CPU that
    are channels last and have 256 pixels or more; C and K are multiples of 32.
    """
    if tuple(weight.shape[2:]) != (3, 3) or groups != 1:
        return False
    if (*stride, *dilation) != (1, 1, 1, 1) or tuple(padding) != (1, 1):
        return False
    if x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if not served("winograd", x, weight) or torch.backends.cpu.get_cpu_capability() not in _CAPABILITIES:
        return False
    if x.dim() != 4 or not x.is_contiguous(memory_format=_LAST):
        return False
    return not (weight.shape[0] % _CHANNELS or weight.shape[1] % _CHANNELS) and x.numel() >= _PIXELS * x.shape[1]


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False, scale: Tensor | None = None
) -> Tensor:
    """The convolution of x [N,C,H,W] by scale [K] times weight [K,C,3,3], plus bias [K]: [N,K,H,W] channels last.

    ``relu``: what is negative becomes 0. Everything is float32 on the CPU, C and K are multiples of 32. Raises
    ValueError naming the argument that is not so or does not fit the others, RuntimeError for other C and K.
    """
    batch, channels, height, width = x.shape
    out_channels = weight.shape[0]
    maps, taps = _ready("x", x, *x.shape), _ready("weight", weight, out_channels, channels, 3, 3)
    vectors = _ready("scale", scale, out_channels), _ready("bias", bias, out_channels)
    out = _empty(batch, out_channels, height, width)
    _run("winograd", maps, taps, *vectors, out, batch, height, width, channels, out_channels, relu, False)
    return out


def input_grad(grad: Tensor, weight: Tensor, scale: Tensor | None = None) -> Tensor:
    """The gradient of x, [N,C,H,W] channels last, given that of the result (before ReLU), [N,K,H,W]."""
    batch, out_channels, height, width = grad.shape
    channels = weight.shape[1]
    maps, taps = _ready("grad", grad, *grad.shape), _ready("weight", weight, out_channels, channels, 3, 3)
    out = _empty(batch, channels, height, width)
    vectors = _ready("scale", scale, out_channels), None
    _run("winograd", maps, taps, *vectors, out, batch, height, width, out_channels, channels, False, True)
    return out


def weight_grad(grad: Tensor, x: Tensor, scale: Tensor | None = None) -> Tensor:
    """The gradient of weight, [K,C,3,3] channels last, given that of the result (before ReLU), [N,K,H,W]."""
    batch, channels, height, width = x.shape
    out_channels = grad.shape[1]
    maps = _ready("grad", grad, batch, out_channels, height, width), _ready("x", x, *x.shape)
    out = _empty(out_channels, channels, 3, 3)
    sizes = batch, height, width, channels, out_channels
    _run("winograd_weight_grad", *maps, _ready("scale", scale, out_channels), out, *sizes)
    return out


def _ready(name: str, tensor: Tensor | None, *shape: int) -> Tensor | None:
    """As C++ reads it. Raises ValueError."""
    if tensor is None:
        return None
    if tuple(tensor.shape) != shape or tensor.dtype != torch.float32 or tensor.device.type != "cpu":
        found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise ValueError(f"{name} must be float32 {shape} on the CPU, got {found}")
    return tensor.contiguous(memory_format=_LAST if len(shape) == 4 else torch.contiguous_format)


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu", memory_format=_LAST)


def _run(function: str, *arguments: Tensor | int | None) -> None:
    run(function, torch.float32, *arguments)
