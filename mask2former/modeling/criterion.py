"""The training loss: classes of all queries, masks of the matched ones, after every decoder layer.

Cheng et al., Mask2Former, CVPR 2022, sec. 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.matcher import Assignment, HungarianMatcher
from mask2former.modeling.targets import Targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.ops import point_sample
from mask2former.utils import comm

# L layers, B batch, Q queries, K classes, R matched pairs, T frames, P points


@dataclass(frozen=True)
class LossTerm:
    """A mask loss of mask2former.modeling.losses (or the user's) with its name in the log and its weight."""

    name: str
    weight: float
    function: Callable[[Tensor, Tensor, float | Tensor], Tensor]


@dataclass(frozen=True)
class PointSampling:
    """How many points the mask losses see per mask, and how they are chosen (PointRend, sec. 3.1)."""

    num_points: int  # 12544 = 112 * 112 (Mask2Former, sec. 3.3)
    oversample_ratio: float
    importance_ratio: float


class SetCriterion(nn.Module):
    """Weighted losses by name: ``loss_ce``, ``loss_<term>`` of the final layer, with ``_0``, ``_1`` ... of the others.

    class_weight   weight of the classification loss
    class_weights  [K+1] weight of each class in it, "no object" last
    Normalisers (weights of the wanted classes, number of masks) are means over all ranks, so that averaging the
    ranks' losses and gradients gives those of one process with all images.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: HungarianMatcher,
        class_weight: float,
        class_weights: Sequence[float],
        terms: list[LossTerm],
        sampling: PointSampling,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.class_weight = class_weight
        self.terms = terms
        self.sampling = sampling
        self.register_buffer("empty_weight", torch.tensor(class_weights))  # the published name

    def forward(self, predictions: QueryPredictions, targets: Targets) -> dict[str, Tensor]:
        assignment = self.matcher(predictions, targets)
        mask_norm = self._mask_normalizer(targets)
        losses = {}
        for layer, loss in enumerate(self._class_losses(predictions, targets, assignment)):
            losses["loss_ce" + _suffix(layer, predictions)] = self.class_weight * loss
        for layer, (logits, labels) in enumerate(zip(*self._points(predictions, targets, assignment))):
            for term in self.terms:
                name = f"loss_{term.name}" + _suffix(layer, predictions)
                losses[name] = term.weight * term.function(logits, labels, mask_norm)
        return losses

    def _mask_normalizer(self, targets: Targets) -> float | Tensor:
        """Number of masks, at least one."""
        count = float(sum(targets.counts))
        if comm.get_world_size() > 1:
            return _mean_over_ranks(torch.tensor(count, device=targets.pixels.device)).clamp(min=1)
        return max(count, 1.0)

    def _class_losses(self, predictions: QueryPredictions, targets: Targets, assignment: Assignment) -> Tensor:
        """Cross-entropy of each layer, [L], over the sum of the weights of the wanted classes."""
        logits = predictions.class_logits
        wanted = logits.new_full(logits.shape[:3], self.num_classes, dtype=torch.int64)  # [L,B,Q]
        layer = torch.arange(len(logits), device=logits.device)[:, None].expand_as(assignment.queries)
        image = assignment.images.expand_as(assignment.queries)
        wanted[layer, image, assignment.queries] = targets.classes[assignment.targets]
        weight = self.empty_weight.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits.flatten(0, 2).to(weight.dtype), wanted.flatten(), weight, reduction="none")
        return loss.view(len(logits), -1).sum(1) / _mean_over_ranks(weight[wanted].flatten(1).sum(1))

    def _points(
        self, predictions: QueryPredictions, targets: Targets, assignment: Assignment
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Per layer the logits and labels [R*T,P] of its matched masks, at points where the prediction is unsure."""
        masks = predictions.masks_of(assignment.queries.split(assignment.counts, 1))
        layers = len(masks)
        masks = masks.to(torch.promote_types(masks.dtype, torch.float32)).flatten(0, 2)  # [L*R*T,h,w]
        s = self.sampling
        points = point_sample.uncertain_points(masks.detach(), s.num_points, s.oversample_ratio, s.importance_ratio)
        logits = point_sample.sample_map(masks[:, None], points)[:, 0]
        places = targets.places[assignment.targets].flatten(0, 2)  # [L*R*T,5]
        labels = point_sample.sample_mask(targets.pixels, places, targets.size, points).to(logits.dtype)
        per_layer = (layers, len(places) // layers, s.num_points)
        return logits.view(per_layer).unbind(), labels.view(per_layer).unbind()


def _suffix(layer: int, predictions: QueryPredictions) -> str:
    return "" if layer == len(predictions.class_logits) - 1 else f"_{layer}"


def _mean_over_ranks(value: Tensor) -> Tensor:
    if comm.get_world_size() > 1:
        torch.distributed.all_reduce(value)
        value = value / comm.get_world_size()
    return value
