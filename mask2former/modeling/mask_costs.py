"""What it would cost to answer for a target by a query, of every pair.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 3.2; at points: Mask2Former, CVPR 2022, sec. 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from mask2former.modeling.layers.linear import linear
from mask2former.ops.mask_losses import PairCost, add_pair_sums

# R masks (queries of all layers), N targets, C channels, P samples

# logits made at a time: on the CPU they stay in its cache, elsewhere they keep the device busy
_LOGITS = {"cpu": 1 << 20, "other": 1 << 22}


@dataclass(frozen=True)
class Pairs:
    """Masks and targets of an image at the same samples.

    embed     [R,C], of masks that are ``<embed, samples> + bias * coverage``
    samples   [P,C] mask features
    labels    [N,P] in [0,1]
    bias      [R]; None: zero
    coverage  [P] what a sample has of the map, less than one at its border
    """

    embed: Tensor
    samples: Tensor
    labels: Tensor
    bias: Tensor | None
    coverage: Tensor

    def costs(self, cost: PairCost) -> tuple[Tensor, Tensor]:
        """Mean over samples of ``cost``, [R,N], and `_dice`, [R,N]."""
        masks, (targets, samples) = len(self.embed), self.labels.shape
        sums = self.embed.new_zeros(masks, 2 + 2 * targets)
        for logits, labels in self._blocks():
            add_pair_sums(sums, logits, labels, cost)
        outside, probability, beyond, overlap = sums.split([1, 1, targets, targets], 1)
        return (outside + beyond) / samples, _dice(overlap, probability + self.labels.sum(1))

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits [R,p] and labels [N,p] of some samples at a time: those of a thousand masks would be a step's peak."""
        portion = max(1, _LOGITS.get(self.embed.device.type, _LOGITS["other"]) // len(self.embed))
        parts = (self.samples.split(portion), self.labels.split(portion, 1), self.coverage.split(portion))
        for samples, labels, coverage in zip(*parts):
            logits = linear(self.embed, samples)
            yield logits if self.bias is None else logits.addr_(self.bias, coverage), labels


def _dice(overlap: Tensor, total: Tensor) -> Tensor:
    """1 - smoothed Dice coefficient."""
    return 1 - (2 * overlap + 1) / (total + 1)
