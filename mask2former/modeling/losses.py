"""Losses on mask logits at points, registered by name. Each returns the sum over masks divided by ``normalizer``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.registry import LOSS

# N matched masks (x frames), P points per mask


@LOSS.register(name="mask")
def sigmoid_cross_entropy(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """Binary cross-entropy of logits [N,P] against labels [N,P] in [0,1], mean over points."""
    per_point = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return per_point.mean(1).sum() / normalizer


@LOSS.register(name="dice")
def dice(logits: Tensor, labels: Tensor, normalizer: float | Tensor) -> Tensor:
    """1 - Dice coefficient over the points (Milletari et al., V-Net, 3DV 2016), smoothed by one."""
    probability = logits.sigmoid()
    overlap = 2 * (probability * labels).sum(1)
    total = probability.sum(1) + labels.sum(1)
    return (1 - (overlap + 1) / (total + 1)).sum() / normalizer
