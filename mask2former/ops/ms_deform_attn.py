"""Multi-scale deformable attention (Zhu et al., Deformable DETR, ICLR 2021, eq. 3).

The definition is `ms_deform_attn_reference`. The compiled ones stand behind the custom op
`mask2former::ms_deform_attn`, which torch.compile and torch.export keep as one node. `backends.py` chooses.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from mask2former.ops.backends import MODULES, backend
from mask2former.ops.cpp import served
from mask2former.ops.reference import ms_deform_attn_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points

_NAME = "ms_deform_attn"


def ms_deform_attn(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Weighted sum of values sampled bilinearly around each query, on every level.

    value               [B,S,H,D], floating; the levels' pixels in row order, one level after the other
    spatial_shapes      [L,2] int64, (h, w) of each level, on the host (elsewhere it is waited for); sum of h*w is S
    sampling_locations  [B,Q,H,L,P,2], (x, y) in [0,1] over the level; outside samples zero
    attention_weights   [B,Q,H,L,P]
    returns             [B,Q,H*D] in value's dtype; computed in float32, or float64 where value is

    Compiled kernels read contiguous memory: other inputs are copied first, as are inputs of another dtype than the
    computation's. Beyond that they hold no memory but results. A location or weight that is NaN, and a location that
    is infinite, makes its query's and head's output and its own gradients NaN; it is never used as an address.
    Double backward is not offered.

    Raises ValueError or TypeError when shapes, dtypes or devices do not fit together.
    """
    _check(value, spatial_shapes, sampling_locations, attention_weights)
    # tracers cannot read the sizes that the definition needs: they keep the op, whatever runs it
    if backend(_NAME, value.device.type) == "torch" and not torch.compiler.is_compiling():
        shapes = _levels(spatial_shapes, value.shape[1])
        return ms_deform_attn_reference(value, shapes, sampling_locations, attention_weights)
    return _op(value, spatial_shapes, sampling_locations, attention_weights)


def ms_deform_attn_raw(
    value: Tensor, spatial_shapes: Tensor, reference: Tensor, pixels: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """:func:`ms_deform_attn` from what a module's projections give it.

    reference  [Q,2], (x, y) in [0,1], at least float32: a query's own place on every level
    pixels     [L,2], (w, h) of each level: spatial_shapes turned round, on the device of reference and in its dtype
    offsets    [B,Q,H,L,P,2], in pixels of the level, from reference to where is sampled
    logits     [B,Q,H,L,P], whose softmax over levels and points are the weights

    Compiled code for CPUs makes locations and weights of one query and head at a time, in both passes, instead of two
    tensors that are together larger than the value. Where a gradient of reference is asked for, they are made.
    """
    if _takes_raw(value, reference, offsets, logits):
        _check(value, spatial_shapes, offsets, logits, ("offsets", "logits"))
        if reference.shape != (offsets.shape[1], 2):
            raise ValueError(f"reference must be [Q={offsets.shape[1]},2], got shape {tuple(reference.shape)}")
        return _raw_op(value, spatial_shapes, reference, offsets, logits)
    weights = logits.flatten(3).softmax(-1).view_as(logits)
    # locations stay in float32 at least: half precision is coarser than a pixel
    locations = reference[:, None, None, None] + offsets.to(reference.dtype) / pixels[:, None]
    return ms_deform_attn(value, spatial_shapes, locations, weights)


def _takes_raw(value: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> bool:
    """Whether compiled code makes locations and weights."""
    if torch.is_grad_enabled() and reference.requires_grad:
        return False
    return served(_NAME, value, reference, offsets, logits) and logits.numel() > 0


def _check(
    value: Tensor,
    spatial_shapes: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    names: tuple[str, str] = ("sampling_locations", "attention_weights"),
) -> None:
    """What can be told without reading data; ``names`` of the last two in errors."""
    if value.dim() != 4:
        raise ValueError(f"value must be [B,S,H,D], got shape {tuple(value.shape)}")
    batch, _, heads, _ = value.shape
    if spatial_shapes.dim() != 2 or spatial_shapes.shape[1] != 2:
        raise ValueError(f"spatial_shapes must be [L,2], got shape {tuple(spatial_shapes.shape)}")
    levels = spatial_shapes.shape[0]
    location_shape = sampling_locations.shape
    if len(location_shape) != 6 or (*location_shape[:1], *location_shape[2:4], location_shape[5]) != (
        batch,
        heads,
        levels,
        2,
    ):
        raise ValueError(
            f"{names[0]} must be [B={batch},Q,H={heads},L={levels},P,2], got shape {tuple(location_shape)}"
        )
    if attention_weights.shape != location_shape[:-1]:
        raise ValueError(
            f"{names[1]} must be {tuple(location_shape[:-1])} as {names[0]}, got shape {tuple(attention_weights.shape)}"
        )
    if spatial_shapes.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"spatial_shapes must be int64 or int32, got {spatial_shapes.dtype}")
    for name, tensor in zip(("value", *names), (value, sampling_locations, attention_weights)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating, got {tensor.dtype}")
        if tensor.device != value.device:
            raise ValueError(f"{name} must be on value's device {value.device}, got {tensor.device}")


def _levels(spatial_shapes: Tensor, pixels: int) -> Tensor:
    """spatial_shapes as compiled code reads it, int64 on the host; raises ValueError where it does not cover S."""
    shapes = spatial_shapes.to("cpu", torch.int64).contiguous()
    sizes = shapes.tolist()
    if any(size < 0 for level in sizes for size in level):
        raise ValueError(f"spatial_shapes must not be negative, got {sizes}")
    covered = sum(h * w for h, w in sizes)
    if covered != pixels:
        raise ValueError(f"spatial_shapes cover {covered} pixels, but value has S={pixels}")
    return shapes


# ---- the custom op: forward, backward, and what tracers need to know of them

# A backend's module (`backends.MODULES`) has
#   ms_deform_attn_forward(value, shapes, locations, weights) -> [B,Q,H*D]
#   ms_deform_attn_backward(grad, value, shapes, locations, weights) -> gradients of value, locations and weights
# and cpp alone
#   ms_deform_attn_raw(value, shapes, reference, offsets, logits) -> [B,Q,H*D]
#   ms_deform_attn_raw_backward(grad, value, shapes, reference, offsets, logits) -> of value, offsets and logits
# all like the tensors they belong to; shapes comes from `_levels`.


def _module(device: torch.device) -> ModuleType:
    return importlib.import_module(f"mask2former.ops.{MODULES[_NAME][backend(_NAME, device.type)]}")


@torch.library.custom_op("mask2former::ms_deform_attn", mutates_args=())
def _op(value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    shapes = _levels(spatial_shapes, value.shape[1])
    if backend(_NAME, value.device.type) == "torch":
        return ms_deform_attn_reference(value, shapes, sampling_locations, attention_weights).contiguous()
    return _module(value.device).ms_deform_attn_forward(value, shapes, sampling_locations, attention_weights)


@torch.library.custom_op("mask2former::ms_deform_attn_raw", mutates_args=())
def _raw_op(value: Tensor, spatial_shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    shapes = _levels(spatial_shapes, value.shape[1])
    return _module(value.device).ms_deform_attn_raw(value, shapes, reference, offsets, logits)


@torch.library.custom_op("mask2former::ms_deform_attn_backward", mutates_args=())
def _backward_op(
    grad: Tensor, value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = _levels(spatial_shapes, value.shape[1])
    if backend(_NAME, value.device.type) == "torch":
        # torch.func, because ops run where autograd does not record
        inputs = value, sampling_locations, attention_weights
        _, backward = torch.func.vjp(lambda value, *rest: ms_deform_attn_reference(value, shapes, *rest), *inputs)
        return tuple(x.contiguous() for x in backward(grad))
    return _module(value.device).ms_deform_attn_backward(grad, value, shapes, sampling_locations, attention_weights)


@torch.library.custom_op("mask2former::ms_deform_attn_raw_backward", mutates_args=())
def _raw_backward_op(
    grad: Tensor, value: Tensor, spatial_shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    shapes = _levels(spatial_shapes, value.shape[1])
    return _module(value.device).ms_deform_attn_raw_backward(grad, value, shapes, reference, offsets, logits)


@_op.register_fake
def _(value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, sampling_locations.shape[1], heads * channels)


@_raw_op.register_fake
def _(value: Tensor, spatial_shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    return value.new_empty(batch, offsets.shape[1], heads * channels)


@_backward_op.register_fake
def _(
    grad: Tensor, value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (value, sampling_locations, attention_weights))


@_raw_backward_op.register_fake
def _(
    grad: Tensor, value: Tensor, spatial_shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape) for x in (value, offsets, logits))


def _save(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, *grads = _backward_op(grad, *ctx.saved_tensors)
    return grad_value, None, *grads


def _differentiate_raw(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
    grad_value, *grads = _raw_backward_op(grad, *ctx.saved_tensors)
    return grad_value, None, None, *grads


_op.register_autograd(_differentiate, setup_context=_save)
_raw_op.register_autograd(_differentiate_raw, setup_context=_save)
