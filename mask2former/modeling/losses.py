"""Losses on samples of mask logits, registered by name. Each returns the sum over masks divided by ``normalizer``."""

from __future__ import annotations

from torch import Tensor

from mask2former.modeling.registry import LOSS
from mask2former.ops.mask_losses import cross_entropy_means, focal_terms, probability_sums

# N matched masks (x frames), P samples (points, or all pixels) per mask


@LOSS.register(name="mask")
def sigmoid_cross_entropy(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """Binary cross-entropy of logits [N,P] against labels [N,P] in [0,1], mean over samples."""
    return cross_entropy_means(logits, labels).sum() / normalizer


@LOSS.register(name="focal")
def sigmoid_focal(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """Focal loss of logits [N,P] against labels [N,P] of 0 and 1, mean over samples."""
    return focal_terms(logits, labels).mean(1).sum() / normalizer


@LOSS.register(name="dice")
def dice(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """1 - Dice coefficient over the samples (Milletari et al., V-Net, 3DV 2016), smoothed by one."""
    overlap, total = probability_sums(logits, labels)
    return (1 - (2 * overlap + 1) / (total + labels.sum(1) + 1)).sum() / normalizer
