"""Sums over samples that mask losses and matching costs are made of.

On the CPU one compiled pass gives them all from one exponential of each logit, and nothing of the logits' size is made
on the way; see ``csrc/mask_losses.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops import mask_losses_cpp
from mask2former.ops.cpp import served

# R masks, N targets, P samples

_NAME = "mask_losses"

# What each sample of mask logits costs outside of a target, and what more it costs inside: a loss that is linear in
# the label, so that one product with labels gives it for all pairs.
PairCost = Callable[[Tensor], tuple[Tensor, Tensor]]


def cross_entropy_cost(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy, for any label y: softplus(x) - y x."""
    return F.softplus(logits), -logits


def focal_cost(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Focal loss, for labels of 0 and 1."""
    outside = focal_terms(logits, 0)
    return outside, focal_terms(logits, 1) - outside


def focal_terms(logits: Tensor, labels: Tensor | int) -> Tensor:
    """Focal loss of each sample, in the shape of ``logits`` (Lin et al., RetinaNet, ICCV 2017, eq. 5).

    Foreground weighs alpha = 0.25, background 1 - alpha; gamma = 2, the constants of that paper and of MaskFormer.
    """
    probability = logits.sigmoid()
    missed = probability + labels - 2 * probability * labels  # 1 - p_t
    cross_entropy = F.softplus(logits) - labels * logits
    return (0.75 - 0.5 * labels) * missed.square() * cross_entropy


_COMPILED = {cross_entropy_cost: mask_losses_cpp.CROSS_ENTROPY, focal_cost: mask_losses_cpp.FOCAL}


def add_pair_sums(sums: Tensor, logits: Tensor, labels: Tensor, cost: PairCost) -> None:
    """Adds to sums [R,2+2N] what logits [R,P] of R masks and labels [N,P] of N targets give; without gradients.

    That is the sums over samples of the cost outside, and of probabilities; and for each target, of what the cost is
    beyond that times labels, and then for each of probabilities times labels.
    """
    if cost in _COMPILED and served(_NAME, sums, logits, labels):
        mask_losses_cpp.add_pair_sums(sums, logits, labels, _COMPILED[cost])
        return
    probability = logits.sigmoid()
    outside, beyond = cost(logits)
    totals = outside.sum(1, keepdim=True), probability.sum(1, keepdim=True)
    sums += torch.cat([*totals, beyond @ labels.t(), probability @ labels.t()], 1)


def cross_entropy_means(logits: Tensor, labels: Tensor) -> Tensor:
    """Means [N] over samples of the binary cross-entropy of logits [N,P] against labels [N,P] in [0,1]."""
    if _compiled(logits, labels):
        return mask_losses_cpp.MaskSums.apply(logits, labels)[:, 0] / logits.shape[1]
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1)


def probability_sums(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums [N] over samples of probability times label, and of probability; of logits and labels [N,P]."""
    if _compiled(logits, labels):
        _, overlap, total = mask_losses_cpp.MaskSums.apply(logits, labels).unbind(1)
        return overlap, total
    probability = logits.sigmoid()
    return (probability * labels).sum(1), probability.sum(1)


def _compiled(logits: Tensor, labels: Tensor) -> bool:
    one_to_one = logits.dim() == 2 and logits.shape == labels.shape
    return one_to_one and not labels.requires_grad and served(_NAME, logits, labels)
