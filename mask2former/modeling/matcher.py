"""One-to-one assignment of queries to targets, for all layers and images in one step.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 3.2; at points: Mask2Former, CVPR 2022, sec. 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mask2former.modeling.mask_costs import Pairs
from mask2former.modeling.sampling import Sampling
from mask2former.modeling.targets import Targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops.mask_losses import PairCost

# L layers, B batch, Q queries, K classes, M targets of all images, N of one


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

    mask_cost  of each sample, a function of mask2former.ops.mask_losses
    sampling   where the masks are looked at
    """

    def __init__(
        self,
        class_weight: float,
        mask_weight: float,
        dice_weight: float,
        *,
        mask_cost: PairCost,
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
        samples, coverage, labels = self.sampling.for_matching(predictions.mask_features.to(dtype), targets)
        probability = predictions.class_logits.to(dtype).softmax(-1)
        biases = predictions.mask_bias
        columns = []
        for image, (label, classes) in enumerate(zip(labels, targets.classes.split(targets.counts))):
            embed = predictions.mask_embed[:, image].to(dtype).flatten(0, 1)  # [L*Q,C]
            bias = None if biases is None else biases[:, image].to(dtype).flatten()
            cost = self._mask_costs(Pairs(embed, samples[image], label, bias, coverage[image]))
            mine = probability[:, image][..., classes]
            columns.append(cost.view_as(mine) - self.class_weight * mine)
        return torch.cat(columns, 2)

    def _mask_costs(self, pairs: Pairs) -> Tensor:
        """[L*Q,N]; an image without targets is not looked at."""
        if len(pairs.labels) == 0:
            return pairs.embed.new_zeros(len(pairs.embed), 0)
        of_masks, dice = pairs.costs(self.mask_cost)
        return self.mask_weight * of_masks + self.dice_weight * dice


def _image_index(counts: list[int], device: torch.device) -> Tensor:
    """[0] * counts[0] + [1] * counts[1] + ..., made on the host, where the counts are known."""
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    return index.to(device, non_blocking=True)


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
