"""Calls of compiled functions, and the compiled ops on CPU tensors. Tensors go as pointers, numbers as int64 or double.

Every function of the libraries is `int m2f_<op>_<pass>_<f32|f64|...>(...)` with parameters `T*`, `int64_t` and
`double` only, so that one rule serves them all. It returns 0, or a number that `m2f_error` has words for.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mask2former.ops import build
from mask2former.ops.backends import backend

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points

SUFFIXES = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16"}


def call(library: ctypes.CDLL, function: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """Call `m2f_<function>_<dtype>`; tensors must be contiguous, of the type and on the device it expects.

    None goes as a null pointer. Raises RuntimeError with the library's words when the function reports an error.
    """
    symbol = f"m2f_{function}_{SUFFIXES[dtype]}"
    status = getattr(library, symbol)(*map(_convert, arguments))
    if status:
        raise RuntimeError(f"{symbol}: {library.m2f_error(status).decode()}")


def run(function: str, dtype: torch.dtype, *arguments: Tensor | int | float | None) -> None:
    """`call` a function of the CPU's library, whose last argument is the number of threads."""
    call(build.library("cpu", required=True), function, dtype, *arguments, torch.get_num_threads())


def served(op: str, *tensors: Tensor) -> bool:
    """Whether the compiled ``op`` takes these: on the CPU, of one precision that it has arithmetic for, and eagerly.

    Eagerly is where operators are not recorded, counted or faked: a library's functions are none.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or is_in_torch_dispatch_mode():
        return False
    dtype = tensors[0].dtype
    if dtype not in (torch.float32, torch.float64) or any(x.dtype != dtype or x.device.type != "cpu" for x in tensors):
        return False
    return backend(op, "cpu") == "cpp"


def plain(*sizes: int) -> tuple[int, ...]:
    """Plain numbers: where torch.jit traces, sizes are tensors, and would go as pointers."""
    return tuple(map(int, sizes))


def _convert(argument: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    if argument is None:
        return ctypes.c_void_p(None)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_int64(argument)


def ms_deform_attn_forward(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """[B,Q,H*D]; arguments as in :func:`mask2former.ops.ms_deform_attn`, shapes int64 and contiguous."""
    inputs = _prepare(value, value, locations, weights)
    sizes = _sizes(value, locations)
    out = inputs[0].new_empty(sizes[0], sizes[4], sizes[2] * sizes[3])
    _run("ms_deform_attn_forward", inputs[0], shapes, *inputs[1:], out, *sizes)
    return out.to(value.dtype)


def ms_deform_attn_raw(value: Tensor, shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    """[B,Q,H*D]; arguments as in :func:`mask2former.ops.ms_deform_attn_raw`, shapes int64 and contiguous."""
    inputs = _prepare(value, value, reference, offsets, logits)
    sizes = _sizes(value, offsets)
    out = inputs[0].new_empty(sizes[0], sizes[4], sizes[2] * sizes[3])
    _run("ms_deform_attn_raw", inputs[0], shapes, *inputs[1:], out, *sizes)
    return out.to(value.dtype)


def ms_deform_attn_backward(
    grad: Tensor, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, given that of the output."""
    grad, *inputs = _prepare(value, grad, value, locations, weights)
    grads = torch.zeros_like(inputs[0]), torch.empty_like(inputs[1]), torch.empty_like(inputs[2])
    _run("ms_deform_attn_backward", grad, inputs[0], shapes, *inputs[1:], *grads, *_sizes(value, locations))
    return tuple(g.to(x.dtype) for g, x in zip(grads, (value, locations, weights)))


def ms_deform_attn_raw_backward(
    grad: Tensor, value: Tensor, shapes: Tensor, reference: Tensor, offsets: Tensor, logits: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, offsets and logits, given that of the output."""
    grad, value, reference, offsets, logits = (x.contiguous() for x in (grad, value, reference, offsets, logits))
    grads = torch.zeros_like(value), torch.empty_like(offsets), torch.empty_like(logits)
    arguments = value, shapes, reference, offsets, logits, *grads
    _run("ms_deform_attn_raw_backward", grad, *arguments, *_sizes(value, offsets))
    return grads


def _prepare(value: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Contiguous, float64 where value is, else float32: half precision has no arithmetic of its own on CPUs."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    return [x.to(dtype).contiguous() for x in tensors]


def _sizes(value: Tensor, locations: Tensor) -> tuple[int, ...]:
    """B, S, H, D, Q, L, P."""
    return plain(*value.shape, locations.shape[1], *locations.shape[3:5])


def _run(function: str, *arguments: Tensor | int) -> None:
    run(function, arguments[0].dtype, *arguments)
