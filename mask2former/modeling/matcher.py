"""One-to-one assignment of queries to targets, for all layers and images in one step.

Cheng et al., Mask2Former, CVPR 2022, sec. 3.3: costs at random points shared by all masks of an image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mask2former.modeling.targets import Targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops import point_sample
from mask2former.ops.point_sample import sample_mask

# L layers, B batch, Q queries, K classes, M targets of all images, N of one, T frames, P points


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
    """Minimises class_weight * (-p) + mask_weight * cross-entropy + dice_weight * dice over each image and layer."""

    def __init__(self, class_weight: float, mask_weight: float, dice_weight: float, num_points: int):
        super().__init__()
        self.class_weight, self.mask_weight, self.dice_weight = class_weight, mask_weight, dice_weight
        self.num_points = num_points

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
        features = predictions.mask_features.to(dtype)  # [B,C,T,h,w]
        batch, channels, frames = features.shape[:3]
        points = point_sample.random_points(batch, self.num_points, features)
        sampled = point_sample.sample_map(features.flatten(1, 2), points).unflatten(1, (channels, frames)).flatten(2)
        probability = predictions.class_logits.to(dtype).softmax(-1)
        columns = []
        parts = zip(_labels_at(targets, points), targets.classes.split(targets.counts))
        for image, (label, classes) in enumerate(parts):
            logits = torch.matmul(predictions.mask_embed[:, image].to(dtype), sampled[image])  # [L,Q,T*P]
            cost = self.mask_weight * _cross_entropy_cost(logits, label)
            cost += self.dice_weight * _dice_cost(logits, label)
            cost -= self.class_weight * probability[:, image][..., classes]
            columns.append(cost)
        return torch.cat(columns, 2)


def _image_index(counts: list[int], device: torch.device) -> Tensor:
    """[0] * counts[0] + [1] * counts[1] + ..., made on the host, where the counts are known."""
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    return index.to(device, non_blocking=True)


def _labels_at(targets: Targets, points: Tensor) -> Iterator[Tensor]:
    """Per image its target masks at its points [B,P,2], [N,T*P]; masks and a clip's frames share the points."""
    for places, shared in zip(targets.places.split(targets.counts), points):
        labels = sample_mask(targets.pixels, places.flatten(0, 1), targets.size, shared)
        yield labels.view(len(places), places.shape[1] * len(shared))


def _cross_entropy_cost(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over points of the binary cross-entropy of every pair, [L,Q,N].

    softplus(x) - y x is the cross-entropy for any label y, so one product gives all pairs.
    """
    return (F.softplus(logits).sum(-1, keepdim=True) - logits @ labels.t()) / labels.shape[1]


def _dice_cost(logits: Tensor, labels: Tensor) -> Tensor:
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
