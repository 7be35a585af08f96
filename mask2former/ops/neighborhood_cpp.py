"""Neighbourhood attention of CPU tensors by the compiled library; see ``csrc/neighborhood_attn.cpp``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mask2former.ops.cpp import plain, run

# B batch, N heads, H W pixels, D channels per head, k kernel size


def neighborhood_attention_2d_forward(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Result [B,N,H,W,D], and the logarithm [B,N,H,W] of the sum of each query's exponentials."""
    maps = _prepare(q, q, k, v)
    out = _like(maps[0], torch.empty)
    lse = maps[0].new_empty(q.shape[:4])
    bias = None if rpb is None else rpb.to(lse.dtype).contiguous()
    settings = (*plain(*q.shape, kernel_size, dilation), float(scale))
    _run("neighborhood_attention_2d_forward", *maps, out, _strides(*maps, out), bias, lse, *settings)
    return out.to(q.dtype), lse


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
    """Gradients of q, k, v and rpb, given that of the result."""
    maps = _prepare(q, q, k, v, out, grad)
    grads = [_like(maps[0], torch.zeros) for _ in range(3)]
    bias = None if rpb is None else rpb.to(lse.dtype).contiguous()
    grad_bias = None if bias is None else torch.empty_like(bias)
    strides = _strides(*maps, *grads)
    settings = (*plain(*q.shape, kernel_size, dilation), float(scale))
    _run("neighborhood_attention_2d_backward", *maps, *grads, strides, bias, lse.contiguous(), grad_bias, *settings)
    return (*(g.to(q.dtype) for g in grads), None if rpb is None else grad_bias.to(rpb.dtype))


def _prepare(q: Tensor, *maps: Tensor) -> list[Tensor]:
    """Channels side by side, float64 where q is, else float32: half precision has no arithmetic of its own on CPUs."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    return [x if x.stride(-1) == 1 else x.contiguous() for x in (x.to(dtype) for x in maps)]


def _like(q: Tensor, make: Callable[..., Tensor]) -> Tensor:
    """A map like q, in memory B, H, W, N, D."""
    return make([q.shape[i] for i in (0, 2, 3, 1, 4)], dtype=q.dtype, device=q.device).permute(0, 3, 1, 2, 4)


def _strides(*maps: Tensor) -> Tensor:
    return torch.tensor([x.stride()[:4] for x in maps], device="cpu")


def _run(function: str, *arguments: Tensor | int | float | None) -> None:
    run(function, arguments[0].dtype, *arguments)
