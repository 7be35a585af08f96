"""Neighbourhood attention in two dimensions, dilated or not.

Sources: Neighborhood Attention Transformer (Hassani et al., CVPR 2023, sec. 3) and Dilated Neighborhood Attention
Transformer (Hassani and Shi, 2022, sec. 3). The authors' library NATTEN is not needed and not used: from version 0.20
on it has neither the relative position bias nor a CPU path.

The definition is ``neighborhood_attention_2d_reference``; plain torch for any device is in ``neighborhood_tiled.py``.
The compiled ones stand behind the custom op ``mask2former::neighborhood_attention_2d``, which torch.compile and
torch.export keep as one node. ``backends.py`` chooses.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mask2former.ops.backends import MODULES, backend
from mask2former.ops.neighborhood_tiled import neighborhood_attention_2d_tiled

# B batch, N heads, H W pixels, D channels per head, k kernel size


def neighborhood_attention_2d(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of each pixel to the kernel_size x kernel_size pixels around it, ``dilation`` apart.

    Near a border the neighbourhood is shifted to stay inside, within the pixels that share the query's row and column
    modulo the dilation. Maps smaller than kernel_size * dilation are extended by zeros below and to the right, which
    take part as keys, and the result is cropped.

    q, k, v   [B,N,H,W,D], floating
    rpb       [N,2k-1,2k-1], added to the logits by the key's place relative to the query (row, column), or None
    scale     of the dot products
    dropout   probability of dropping an attention weight; 0 outside of training. Only plain torch has it
    returns   [B,N,H,W,D]

    A NaN or infinity reaches the queries that see it, and in plain torch others of its tile. Double backward is not
    offered.

    Raises ValueError or TypeError when shapes, dtypes or devices do not fit together.
    """
    _check(q, k, v, rpb, kernel_size, dilation)
    if dropout or backend("neighborhood_attention_2d", q.device.type) == "torch":
        return neighborhood_attention_2d_tiled(q, k, v, rpb, kernel_size, dilation, scale, dropout)
    return _op(q, k, v, rpb, kernel_size, dilation, scale)[0]


def _check(q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int) -> None:
    if q.dim() != 5:
        raise ValueError(f"q must be [B,N,H,W,D], got shape {tuple(q.shape)}")
    if not q.is_floating_point():
        raise TypeError(f"q must be floating, got {q.dtype}")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape:
            raise ValueError(f"{name} must be {tuple(q.shape)} as q, got shape {tuple(x.shape)}")
        if x.dtype != q.dtype:
            raise TypeError(f"{name} must be {q.dtype} as q, got {x.dtype}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, got {dilation}")
    expected = (q.shape[1], 2 * kernel_size - 1, 2 * kernel_size - 1)
    if rpb is not None and tuple(rpb.shape) != expected:
        raise ValueError(f"rpb must be [N,2k-1,2k-1], here {expected}, got {tuple(rpb.shape)}")
    if rpb is not None and not rpb.is_floating_point():
        raise TypeError(f"rpb must be floating, got {rpb.dtype}")
    for name, x in (("k", k), ("v", v), ("rpb", rpb)):
        if x is not None and x.device != q.device:
            raise ValueError(f"{name} must be on q's device {q.device}, got {x.device}")


# ---- the custom op: forward, backward, and what tracers need to know of them

# A backend's module (`backends.MODULES`) has
#   neighborhood_attention_2d_forward(q, k, v, rpb, kernel_size, dilation, scale) -> out [B,N,H,W,D] like q,
#       lse [B,N,H,W] in float32 or, of float64, float64: for each query the logarithm of its exponentials' sum
#   neighborhood_attention_2d_backward(grad, q, k, v, rpb, out, lse, kernel_size, dilation, scale)
#       -> gradients of q, k, v and rpb like the tensors they belong to, the last None where rpb is
# Tensors may have any strides, and rpb another floating dtype than q.


def _module(device: torch.device) -> ModuleType:
    name = "neighborhood_attention_2d"
    return importlib.import_module(f"mask2former.ops.{MODULES[name][backend(name, device.type)]}")


def _pixels_first(x: Tensor) -> Tensor:
    """[B,N,H,W,D] with memory in the order B, H, W, N, D: what a projection of all heads reads, and tracers expect."""
    return x.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4)


@torch.library.custom_op("mask2former::neighborhood_attention_2d", mutates_args=())
def _op(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int, scale: float
) -> tuple[Tensor, Tensor]:
    _check(q, k, v, rpb, kernel_size, dilation)
    forward = _module(q.device).neighborhood_attention_2d_forward
    out, lse = forward(q, k, v, rpb, kernel_size, dilation, scale)
    return _pixels_first(out), lse


@_op.register_fake
def _(q, k, v, rpb, kernel_size, dilation, scale):
    return _pixels_first(torch.empty_like(q)), q.new_empty(
        q.shape[:4], dtype=torch.promote_types(q.dtype, torch.float32)
    )


@torch.library.custom_op("mask2former::neighborhood_attention_2d_backward", mutates_args=())
def _backward_op(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    backward = _module(q.device).neighborhood_attention_2d_backward
    *maps, grad_rpb = backward(grad, q, k, v, rpb, out, lse, kernel_size, dilation, scale)
    return (*map(_pixels_first, maps), q.new_empty(0) if grad_rpb is None else grad_rpb.contiguous())


@_backward_op.register_fake
def _(grad, q, k, v, rpb, out, lse, kernel_size, dilation, scale):
    maps = (_pixels_first(torch.empty_like(q)) for _ in range(3))
    return (*maps, q.new_empty(0) if rpb is None else rpb.new_empty(rpb.shape))


def _save(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.kernel_size, ctx.dilation, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: FunctionCtx, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    saved = ctx.saved_tensors  # once: recomputed ones are given out only once
    *grads, grad_rpb = _backward_op(grad, *saved, ctx.kernel_size, ctx.dilation, ctx.scale)
    return (*grads, None if saved[3] is None else grad_rpb, None, None, None)


_op.register_autograd(_differentiate, setup_context=_save)
