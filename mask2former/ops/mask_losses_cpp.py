"""Sums over samples of mask logits, of CPU tensors, by the compiled library; see ``csrc/mask_losses.cpp``.

What they compute is defined by plain torch in ``mask_losses.py``, which is also what runs elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.ops.cpp import run

# R masks, N targets, P samples

CROSS_ENTROPY, FOCAL = 0, 1  # the costs that C++ knows


def add_pair_sums(sums: Tensor, logits: Tensor, labels: Tensor, cost: int) -> None:
    """As :func:`mask2former.ops.mask_losses.add_pair_sums`; sums are contiguous."""
    (masks, samples), targets = logits.shape, len(labels)
    if sums.shape != (masks, 2 + 2 * targets) or not sums.is_contiguous():
        raise ValueError(f"sums must be contiguous {(masks, 2 + 2 * targets)}, got shape {tuple(sums.shape)}")
    if labels.shape != (targets, samples):
        raise ValueError(f"labels must be [N,P={samples}] as logits, got shape {tuple(labels.shape)}")
    labels = labels if labels.stride(1) == 1 else labels.contiguous()
    _run("add_pair_sums", logits.contiguous(), labels, sums, masks, samples, targets, labels.stride(0), cost)


class MaskSums(torch.autograd.Function):
    """Sums over samples of cross-entropy, of probability times label, and of probability, [N,3].

    Of logits [N,P] and labels [N,P] in [0,1]; keeps these alone for the backward pass.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        return mask_sums_forward(logits, labels)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return mask_sums_backward(grad, *ctx.saved_tensors), None


def mask_sums_forward(logits: Tensor, labels: Tensor) -> Tensor:
    """[N,3] of logits and labels [N,P]."""
    sums = logits.new_empty(len(logits), 3)
    _run("mask_sums_forward", logits.contiguous(), labels.contiguous(), sums, *logits.shape)
    return sums


def mask_sums_backward(grad: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the logits, given that of the sums [N,3]."""
    grad_logits = logits.new_empty(logits.shape)
    _run("mask_sums_backward", logits.contiguous(), labels.contiguous(), grad.contiguous(), grad_logits, *logits.shape)
    return grad_logits


def _run(function: str, *arguments: Tensor | int) -> None:
    run(function, arguments[0].dtype, *arguments)
