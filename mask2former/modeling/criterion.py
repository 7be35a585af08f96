"""The training loss: classes of all queries, masks of the matched ones, after every decoder layer.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 3.2; at points: Mask2Former, CVPR 2022, sec. 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mask2former.modeling.matcher import Assignment, HungarianMatcher
from mask2former.modeling.sampling import Portion, Sampling
from mask2former.modeling.targets import Targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.utils import comm

# L layers, B batch, Q queries, K classes, R matched pairs, T frames, P samples per mask


@dataclass(frozen=True)
class LossTerm:
    """A mask loss of mask2former.modeling.losses (or the user's) with its name in the log and its weight."""

    name: str
    weight: float
    function: Callable[[Tensor, Tensor, float | Tensor], Tensor]


class SetCriterion(nn.Module):
    """Weighted losses by name: ``loss_ce``, ``loss_<term>`` of the final layer, with ``_0``, ``_1`` ... of the others.

    class_weight   weight of the classification loss
    class_weights  [K+1] weight of each class in it, "no object" last
    sampling       where the mask terms look at the masks
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
        sampling: Sampling,
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
        for layer, portions in enumerate(self._samples(predictions, targets, assignment)):
            for term, loss in zip(self.terms, self._mask_losses(portions, mask_norm)):
                losses[f"loss_{term.name}" + _suffix(layer, predictions)] = term.weight * loss
        return losses

    def _mask_normalizer(self, targets: Targets) -> float | Tensor:
        """Number of masks, at least one."""
        count = float(sum(targets.counts))
        if comm.get_world_size() > 1:
            return comm.mean(torch.full((), count, device=targets.pixels.device)).clamp(min=1)
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
        return loss.view(len(logits), -1).sum(1) / comm.mean(weight[wanted].flatten(1).sum(1))

    def _mask_losses(self, portions: list[Portion], mask_norm: float | Tensor) -> list[Tensor]:
        """Each term of one layer: it is a sum over masks, so that portions of them add up."""

        def losses_of(portion: Portion) -> tuple[Tensor, ...]:
            logits, labels = portion()
            return tuple(term.function(logits, labels, mask_norm) for term in self.terms)

        if self.sampling.recomputed:
            parts = [checkpoint(losses_of, portion, use_reentrant=False) for portion in portions]
        else:
            parts = [losses_of(portion) for portion in portions]
        return [sum(of_term) for of_term in zip(*parts)]

    def _samples(
        self, predictions: QueryPredictions, targets: Targets, assignment: Assignment
    ) -> Iterator[list[Portion]]:
        """Per layer what gives the logits and labels of its matched masks."""
        masks = predictions.masks_of(assignment.queries.split(assignment.counts, 1))  # [L,R,T,h,w]
        masks = masks.to(torch.promote_types(masks.dtype, torch.float32))
        return self.sampling.for_loss(masks, targets, assignment.targets)


def _suffix(layer: int, predictions: QueryPredictions) -> str:
    return "" if layer == len(predictions.class_logits) - 1 else f"_{layer}"
