"""Group normalisation of channels-last maps on the CPU, by the compiled library; see ``csrc/group_norm.cpp``.

What runs elsewhere is in ``modeling/layers/group_norm.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.ops import cpp
from mask2former.ops.cpp import plain, run

# N images, C channels, G groups, H W map size, h w size of a coarser map

_LAYOUT = {"memory_format": torch.channels_last}


def served(x: Tensor, *others: Tensor | None) -> bool:
    """Whether the functions below take maps x [N,C,H,W], which are channels-last, and all others; none is missing."""
    if type(x) is not Tensor or any(other is None for other in others):
        return False  # a subclass may have no values, as where shapes alone are followed
    return cpp.served("group_norm", x, *others) and x.numel() > 0 and x.is_contiguous(**_LAYOUT)


def statistics(x: Tensor, groups: int, eps: float) -> Tensor:
    """Mean of each group of channels and 1 / sqrt(variance + eps), float64 [N,G,2]."""
    out = torch.empty(len(x), groups, 2, dtype=torch.float64, device="cpu")
    _run("group_norm_statistics", x.detach(), out, *_sizes(x, groups), float(eps))
    return out


def apply(
    x: Tensor, of_groups: Tensor, weight: Tensor, bias: Tensor, *, relu: bool, coarser: Tensor | None, out: Tensor
) -> Tensor:
    """Maps x normalised by their statistics, times weight [C] plus bias [C], in ``out``, which may be x.

    ``relu`` leaves no negative value; ``coarser`` [N,C,h,w] is added at the size of x, resized
    bilinearly as by ``F.interpolate``. There is one or the other.

    Raises ValueError when shapes do not fit together.
    """
    _check(x, weight, bias, coarser)
    if coarser is None:
        small = 0, 0, 0
    else:
        if not coarser[:1].is_contiguous(**_LAYOUT):
            coarser = coarser.contiguous(**_LAYOUT)
        small = *coarser.shape[2:], coarser.stride(0)
    tensors = x.detach(), of_groups, weight.detach().contiguous(), bias.detach().contiguous(), coarser, out
    _run("group_norm_apply", *tensors, *_sizes(x, of_groups.shape[1]), *plain(*small), int(relu))
    return out


def backward(
    grad: Tensor, x: Tensor, of_groups: Tensor, weight: Tensor, bias: Tensor, *, relu: bool, out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, which is in ``out`` then, weight and bias; of ``coarser`` it would be that of a resized map."""
    weight, bias = weight.detach().contiguous(), bias.detach().contiguous()
    grads = out, torch.empty_like(weight), torch.empty_like(bias)
    if not grad.is_contiguous(**_LAYOUT):
        grad = out.copy_(grad)
    _run("group_norm_backward", grad, x, of_groups, weight, bias, *grads, *_sizes(x, of_groups.shape[1]), int(relu))
    return grads


def _check(x: Tensor, weight: Tensor, bias: Tensor, coarser: Tensor | None) -> None:
    if weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        raise ValueError(f"weight and bias must be [C={x.shape[1]}], got {tuple(weight.shape)} and {tuple(bias.shape)}")
    if coarser is not None and (coarser.dim() != 4 or coarser.shape[:2] != x.shape[:2]):
        raise ValueError(f"coarser must be [N={len(x)},C={x.shape[1]},h,w], got shape {tuple(coarser.shape)}")


def _sizes(x: Tensor, groups: int) -> tuple[int, ...]:
    """N, H, W, C, G."""
    return plain(len(x), *x.shape[2:], x.shape[1], groups)


def _run(function: str, *arguments: Tensor | int | float | None) -> None:
    run(function, arguments[0].dtype, *arguments)
