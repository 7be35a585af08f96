"""Losses on samples of mask logits, registered by name. Each returns the sum over masks divided by ``normalizer``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.registry import LOSS

# N matched masks (x frames), P samples (points, or all pixels) per mask


@LOSS.register(name="mask")
def sigmoid_cross_entropy(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """Binary cross-entropy of logits [N,P] against labels [N,P] in [0,1], mean over samples."""
    per_point = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return per_point.mean(1).sum() / normalizer


@LOSS.register(name="focal")
def sigmoid_focal(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """Focal loss of logits [N,P] against labels [N,P] of 0 and 1, mean over samples."""
    return focal_terms(logits, labels).mean(1).sum() / normalizer


def focal_terms(logits: Tensor, labels: Tensor | int) -> Tensor:
    """Focal loss of each sample, in the shape of ``logits`` (Lin et al., RetinaNet, ICCV 2017, eq. 5).

    Foreground weighs alpha = 0.25, background 1 - alpha; gamma = 2, the constants of that paper and of MaskFormer.
    """
    probability = logits.sigmoid()
    missed = probability + labels - 2 * probability * labels  # 1 - p_t
    cross_entropy = F.softplus(logits) - labels * logits
    return (0.75 - 0.5 * labels) * missed.square() * cross_entropy


@LOSS.register(name="dice")
def dice(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """1 - Dice coefficient over the samples (Milletari et al., V-Net, 3DV 2016), smoothed by one."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * labels).sum(1)
    total = probability.sum(1) + labels.sum(1)
    return (1 - (overlap + 1) / (total + 1)).sum() / normalizer
