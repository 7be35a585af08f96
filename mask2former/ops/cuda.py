"""The compiled ops on CUDA tensors; see ``csrc/cuda``.

Kernels run on the tensors' device and its current stream. Values are read and written in their own dtype, float32,
float64, float16 or bfloat16; locations, weights, rpb and all sums are float32, or float64 where the values are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.ops import build
from mask2former.ops.cpp import SUFFIXES, call, plain

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# neighbourhood attention: N heads, H W pixels, k kernel size

MAX_LEVELS = 64  # as in csrc/cuda/ms_deform_attn.cuh
MAX_CHANNELS = 256  # as in csrc/cuda/neighborhood_attn.cuh


def ms_deform_attn_forward(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """[B,Q,H*D]; arguments as in :func:`mask2former.ops.ms_deform_attn`, shapes int64, contiguous and on the host."""
    sizes = _sizes(value, locations)
    out = value.new_empty(sizes[0], sizes[4], sizes[2] * sizes[3])
    _run("ms_deform_attn_forward", value.contiguous(), shapes, *_precise(value, locations, weights), out, *sizes)
    return out


def ms_deform_attn_backward(
    grad: Tensor, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, given that of the output; that of value differs from run to run."""
    sizes = _sizes(value, locations)
    precise = _precise(value, locations, weights)
    # half precision would lose most of what thousands of samples add to a pixel
    grads = torch.zeros(value.shape, dtype=precise[0].dtype, device=value.device), *map(torch.empty_like, precise)
    grad = grad.to(value.dtype).contiguous()
    _run("ms_deform_attn_backward", grad, value.contiguous(), shapes, *precise, *grads, *sizes)
    return tuple(g.to(x.dtype) for g, x in zip(grads, (value, locations, weights)))


def _sizes(value: Tensor, locations: Tensor) -> tuple[int, ...]:
    """B, S, H, D, Q, L, P; raises ValueError where the kernels have no room for them."""
    if locations.shape[3] > MAX_LEVELS:
        raise ValueError(
            f"spatial_shapes has {locations.shape[3]} levels, the CUDA kernels take {MAX_LEVELS}: "
            "set MASK2FORMER_OPS=torch"
        )
    return plain(*value.shape, locations.shape[1], *locations.shape[3:5])


def neighborhood_attention_2d_forward(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Result [B,N,H,W,D], and the logarithm [B,N,H,W] of the sum of each query's exponentials."""
    settings = _settings(q, kernel_size, dilation, scale)
    maps = *_side_by_side(q, k, v), _like(q)
    bias = None if rpb is None else _precise(q, rpb)[0]
    lse = torch.empty(q.shape[:4], dtype=_accumulator(q), device=q.device)
    _run("neighborhood_attention_2d_forward", *maps, _strides(*maps), bias, lse, *settings)
    return maps[3], lse


def neighborhood_attention_2d_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    out: Tensor,
    lse: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of q, k, v and rpb, given that of the result; that of rpb differs a little from run to run."""
    settings = _settings(q, kernel_size, dilation, scale)
    maps = *_side_by_side(q, k, v, grad.to(q.dtype)), _like(q), _like(q), _like(q)
    bias, grad_bias = None, None
    if rpb is not None:
        bias = _precise(q, rpb)[0]
        grad_bias = torch.zeros_like(bias)
    delta = (out.to(lse.dtype) * grad).sum(-1, dtype=lse.dtype).contiguous()  # [B,N,H,W]
    tables = bias, lse.contiguous(), delta, grad_bias
    _run("neighborhood_attention_2d_backward", *maps, _strides(*maps), *tables, *settings)
    return (*maps[4:], None if rpb is None else grad_bias.to(rpb.dtype))


def _settings(q: Tensor, kernel_size: int, dilation: int, scale: float) -> tuple[int | float, ...]:
    """B, N, H, W, D, kernel, dilation, scale; raises ValueError where the kernels have no room for them."""
    if q.shape[4] > MAX_CHANNELS:
        raise ValueError(
            f"q has {q.shape[4]} channels per head, the CUDA kernels take {MAX_CHANNELS}: set MASK2FORMER_OPS=torch"
        )
    return (*plain(*q.shape, kernel_size, dilation), float(scale))


def _side_by_side(*maps: Tensor) -> tuple[Tensor, ...]:
    """Copies where channels are not next to each other."""
    return tuple(x if x.stride(-1) == 1 else x.contiguous() for x in maps)


def _like(q: Tensor) -> Tensor:
    """A map like q, in memory B, H, W, N, D."""
    return q.new_empty([q.shape[i] for i in (0, 2, 3, 1, 4)]).permute(0, 3, 1, 2, 4)


def _strides(*maps: Tensor) -> Tensor:
    return torch.tensor([x.stride()[:4] for x in maps], device="cpu")


def _accumulator(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)


def _precise(values: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Contiguous, and of the dtype that sums of values are computed in."""
    return [x.to(_accumulator(values)).contiguous() for x in tensors]


def _run(function: str, *arguments: Tensor | int | float | None) -> None:
    """Call the function for the first tensor's dtype, on its device and there on the current stream."""
    dtype, device = arguments[0].dtype, arguments[0].device
    if dtype not in SUFFIXES:
        raise TypeError(f"{function}: the CUDA kernels take {', '.join(map(str, SUFFIXES))}, not {dtype}")
    library = build.library("cuda", required=True)
    with torch.cuda.device(device):
        call(library, function, dtype, *arguments, torch.cuda.current_stream(device).cuda_stream)
