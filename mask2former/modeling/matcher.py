"""One-to-one assignment of queries to targets, for all layers and images in one step.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 3.2; at points: Mask2Former, CVPR 2022, sec. 3.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mask2former.modeling.losses import focal_terms
from mask2former.modeling.sampling import Sampling
from mask2former.modeling.targets import Targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops.point_sample import masks_at_once

# L layers, B batch, Q queries, K classes, M targets of all images, N of one, T frames, P samples per mask


@dataclass
class Assignment:
    """Which query answers for which target. ``count`` R = sum over images of min(Q, targets), the same per layer.

    images  [R] index of the image;  queries [L,R] index of the query;  targets [L,R] index into the M targets
    counts  R split by image
    """

    images: Tensor
    queries: Tensor
    targets: Tensor
    counts: list[int]


class HungarianMatcher(nn.Module):
    """Minimises class_weight * (-p) + mask_weight * mask_cost + dice_weight * dice over each image and layer.

    mask_cost  of every pair of mask logits [L,Q,P] and labels [N,P], [L,Q,N]
    sampling   where the masks are looked at
    """

    def __init__(
        self,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        *,
        mask_cost: Callable[[Tensor, Tensor], Tensor],
        sampling: Sampling,
    ):
        super().__init__()
        self.class_weight, self.mask_weight, self.dice_weight = class_weight, mask_weight, dice_weight
        self.mask_cost, self.sampling = mask_cost, sampling

    @torch.no_grad()
    def forward(self, predictions: QueryPredictions, targets: Targets) -> Assignment:
        """One device-to-host transfer (all costs) and one back (all indices)."""
        device = predictions.class_logits.device
        with torch.autocast(device.type, enabled=False):  # costs of half precision tie and overflow
            costs = self._costs(predictions, targets)
        queries, columns, counts = _assign(costs.cpu().numpy(), targets.counts)
        packed = torch.from_numpy(np.stack([queries, columns])).to(device, non_blocking=True)
        return Assignment(_image_index(counts, device), packed[0], packed[1], counts)

    def _costs(self, predictions: QueryPredictions, targets: Targets) -> Tensor:
        """[L,Q,M]; a column holds the costs within its own image."""
        dtype = torch.promote_types(predictions.class_logits.dtype, torch.float32)
        sampled, labels = self.sampling.for_matching(predictions.mask_features.to(dtype), targets)
        probability = predictions.class_logits.to(dtype).softmax(-1)
        columns = []
        for image, (label, classes) in enumerate(zip(labels, targets.classes.split(targets.counts))):
            embed = predictions.mask_embed[:, image].to(dtype)  # [L,Q,C]
            layers = masks_at_once(embed.shape[1] * sampled.shape[2], embed.device)
            cost = torch.cat([self._mask_costs(some @ sampled[image], label) for some in embed.split(layers)])
            columns.append(cost - self.class_weight * probability[:, image][..., classes])
        return torch.cat(columns, 2)

    def _mask_costs(self, logits: Tensor, label: Tensor) -> Tensor:
        """[L,Q,N] from logits [L,Q,T*P] and labels [N,T*P]."""
        return self.mask_weight * self.mask_cost(logits, label) + self.dice_weight * dice_cost(logits, label)


def _image_index(counts: list[int], device: torch.device) -> Tensor:
    """[0] * counts[0] + [1] * counts[1] + ..., made on the host, where the counts are known."""
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    return index.to(device, non_blocking=True)


def cross_entropy_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples of the binary cross-entropy of every pair, [L,Q,N].

    softplus(x) - y x is the cross-entropy for any label y, so one product gives all pairs.
    """
    return (F.softplus(logits).sum(-1, keepdim=True) - logits @ labels.t()) / labels.shape[1]


def focal_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples of the focal loss of every pair, [L,Q,N].

    It is linear in labels of 0 and 1: what a background sample costs, plus what foreground costs beyond that.
    """
    if_empty = focal_terms(logits, 0)
    beyond = focal_terms(logits, 1) - if_empty
    return (if_empty.sum(-1, keepdim=True) + beyond @ labels.t()) / labels.shape[1]


def dice_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - smoothed Dice coefficient of every pair, [L,Q,N]."""
    probability = logits.sigmoid()
    total = probability.sum(-1, keepdim=True) + labels.sum(-1)
    return 1 - (2 * (probability @ labels.t()) + 1) / (total + 1)


def _assign(costs: np.ndarray, counts: list[int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows [L,R] and columns [L,R] of the cheapest assignments, images side by side."""
    # any assignment will do for predictions that are not finite: their loss is not either, and the trainer says so
    costs = np.nan_to_num(costs, nan=0.0, posinf=0.0, neginf=0.0)
    num_queries = costs.shape[1]
    rows, columns = [], []
    for layer in costs:
        starts = np.cumsum([0, *counts])
        pairs = [linear_sum_assignment(layer[:, a:b]) for a, b in pairwise(starts)]
        rows.append(np.concatenate([r for r, _ in pairs]))
        columns.append(np.concatenate([c + a for (_, c), a in zip(pairs, starts)]))
    kept = [min(num_queries, n) for n in counts]
    return np.stack(rows).astype(np.int64), np.stack(columns).astype(np.int64), kept
