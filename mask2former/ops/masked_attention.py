"""Attention of a few queries to many pixels, each to those its mask allows; compiled for the CPU.

``F.scaled_dot_product_attention`` defines it and serves whatever the compiled library does not: other devices and
types, dropout, recorded graphs. On the CPU, torch's spends half its time on what the library leaves out: a mask in
floating point, pixels that no query attends to, and copies of a layout with the heads first.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.ops.cpp import plain, run, served

# B batch, H heads, Q queries, S pixels, D channels per head


def masked_attention(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, num_heads: int, dropout: float = 0.0
) -> Tensor:
    """Softmax attention with dot products divided by the square root of D.

    A query that may attend to nothing gets zeros. The compiled library never reads the values of pixels that no query
    may attend to, be they NaN, and offers no double backward.

    Args:
        q: [B,Q,H*D].
        k: [B,S,H*D], as v.
        allowed: [B,Q,S] bool, True where a query may attend to a pixel, for all heads; None: everywhere.
        dropout: probability of dropping an attention weight; 0 outside of training.

    Returns:
        [B,Q,H*D].
    """
    if not _served(q, k, v, allowed, dropout):
        q, k, v = (x.unflatten(2, (num_heads, -1)).transpose(1, 2) for x in (q, k, v))
        mask = None if allowed is None else allowed[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
        return attended.transpose(1, 2).flatten(2)
    if q.shape[2] % num_heads:
        raise ValueError(f"num_heads must divide the {q.shape[2]} channels of q, got {num_heads}")
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return _Attention.apply(q, k, v, allowed, num_heads)
    return masked_attention_forward(q, k, v, allowed, num_heads)[0]


def _served(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, dropout: float) -> bool:
    """Whether the compiled library takes these."""
    if dropout or not served("masked_attention", q, k, v):
        return False
    return q.numel() > 0 and k.numel() > 0 and (allowed is None or allowed.dtype == torch.bool)


class _Attention(torch.autograd.Function):
    """Keeps its inputs, the result and a number for each query and head."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, num_heads: int) -> Tensor:
        out, lse = masked_attention_forward(q, k, v, allowed, num_heads)
        ctx.save_for_backward(q, k, v, allowed, out, lse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*masked_attention_backward(grad, *ctx.saved_tensors), None, None)


def masked_attention_forward(
    q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, num_heads: int
) -> tuple[Tensor, Tensor]:
    """Result [B,Q,H*D] by the library, and the logarithm [B,H,Q] of the sum of each query's exponentials."""
    q, k, v, mask = _prepare(q, k, v, allowed)
    out, lse = torch.empty_like(q), q.new_empty(len(q), num_heads, q.shape[1])
    _run("forward", q, k, v, mask, out, lse, sizes=_sizes(k, lse))
    return out, lse


def masked_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, given that of the result."""
    q, k, v, mask = _prepare(q, k, v, allowed)
    grads = tuple(map(torch.empty_like, (q, k, v)))
    _run("backward", grad.contiguous(), q, k, v, mask, out, lse, *grads, sizes=_sizes(k, lse))
    return grads


def _prepare(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> list[Tensor | None]:
    shape = (len(q), q.shape[1], k.shape[1])
    if k.shape != v.shape or (len(k), k.shape[2]) != (len(q), q.shape[2]):
        raise ValueError(
            f"k and v must be [B,S,H*D] where q is {tuple(q.shape)}, got {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if allowed is not None and allowed.shape != shape:
        raise ValueError(f"allowed must be [B,Q,S], here {shape}, got {tuple(allowed.shape)}")
    return [None if x is None else x.contiguous() for x in (q, k, v, allowed)]


def _sizes(k: Tensor, lse: Tensor) -> tuple[int, ...]:
    """B, H, Q, S, D."""
    batch, heads, queries = plain(*lse.shape)
    return batch, heads, queries, k.shape[1], k.shape[2] // heads


def _run(function: str, *tensors: Tensor | None, sizes: tuple[int, ...]) -> None:
    scale = float(sizes[-1]) ** -0.5
    run(f"masked_attention_{function}", tensors[0].dtype, *tensors, *sizes, scale)
