"""Where matching and loss look at the masks: at points (Mask2Former), or at every pixel (MaskFormer).

Masks are factors until here: matching gets samples of the mask features, the loss samples of the matched masks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.modeling.targets import Targets
from mask2former.ops import point_sample

# L layers, B batch, M targets of all images, N of one, R matched pairs, C channels, T frames, P samples per mask

_MASKS = 4  # compared with their labels at full size together: they stay near the cache, half the time of all at once
_PIXELS = 1 << 24  # pixels of targets read at a time: the indices of a thousand targets would take gigabytes


# gives the logits and labels [N,P] of some matched masks (a mask for each frame)
Portion = Callable[[], tuple[Tensor, Tensor]]


class Sampling(Protocol):
    """How a criterion and its matcher look at masks.

    recomputed  whether what a portion gives is made again in the backward pass, as there is too much of it to keep
    """

    recomputed: bool

    def for_matching(self, features: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """Mask features [B,C,T,h,w] -> samples [B,T*P,C], their coverage, and per image its targets' labels [N,T*P].

        Coverage [B,T*P] is what a map of ones would give. Labels are in [0,1].
        """

    def for_loss(self, masks: Tensor, targets: Targets, chosen: Tensor) -> Iterator[list[Portion]]:
        """Mask logits [L,R,T,h,w] of targets ``chosen`` [L,R] -> per layer portions, one at least."""


@dataclass(frozen=True)
class PointSampling:
    """Random points: uniform ones in matching, most of them uncertain ones in the loss (Mask2Former, sec. 3.3)."""

    recomputed: ClassVar[bool] = False
    num_points: int  # 12544 = 112 * 112 (Mask2Former, sec. 3.3)
    oversample_ratio: float  # this and the next: PointRend, sec. 3.1
    importance_ratio: float

    def for_matching(self, features: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        """All masks of an image and all frames of a clip share the points."""
        points = point_sample.random_points(len(features), self.num_points, features)
        samples = point_sample.sample_features(features, points)
        coverage = point_sample.coverage(points, features.shape[-2:]).repeat(1, features.shape[2])
        return samples, coverage, _labels_at(targets, points)

    def for_loss(self, masks: Tensor, targets: Targets, chosen: Tensor) -> Iterator[list[Portion]]:
        layers, maps = len(masks), masks.flatten(0, 2)  # [L*R*T,h,w]
        points = point_sample.uncertain_points(
            maps.detach(), self.num_points, self.oversample_ratio, self.importance_ratio
        )
        logits = point_sample.sample_map(maps[:, None], points)[:, 0]
        places = targets.places[chosen].flatten(0, 2)  # [L*R*T,6]
        labels = point_sample.sample_mask(targets.pixels, places, targets.size, points).to(logits.dtype)
        per_layer = (layers, len(places) // layers, self.num_points)
        return ([partial(tuple, pair)] for pair in zip(logits.view(per_layer), labels.view(per_layer)))


class AllPixels:
    """Every pixel (MaskFormer, sec. 3.2).

    Matching sees the targets at the resolution of the mask features, by the nearest pixel; the loss sees the masks
    resized to the padded images' size, a few at a time.
    """

    recomputed = True

    def for_matching(self, features: Tensor, targets: Targets) -> tuple[Tensor, Tensor, Iterator[Tensor]]:
        labels = _labels_on_grid(targets, tuple(features.shape[-2:])).split(targets.counts)
        samples = features.detach().flatten(2).transpose(1, 2)
        coverage = samples.new_ones(samples.shape[:2])
        return samples, coverage, (label.flatten(1).to(features.dtype) for label in labels)

    def for_loss(self, masks: Tensor, targets: Targets, chosen: Tensor) -> Iterator[list[Portion]]:
        labels = _labels_on_grid(targets, targets.size)
        for layer, rows in zip(masks, chosen):
            some = zip(layer.split(_MASKS), rows.split(_MASKS))
            yield [partial(_at_full_size, masks=few, labels=labels, rows=their) for few, their in some]


def _at_full_size(masks: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and labels [N*T,H*W] of masks [N,T,h,w] whose labels are those ``rows`` [N] of [M,T,H,W]."""
    resized = F.interpolate(masks, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return resized.flatten(0, 1).flatten(1), labels[rows].flatten(0, 1).flatten(1).to(resized.dtype)


def _labels_at(targets: Targets, points: Tensor) -> Iterator[Tensor]:
    """Per image its target masks at its points [B,P,2], [N,T*P]."""
    for places, shared in zip(targets.places.split(targets.counts), points):
        labels = point_sample.sample_mask(targets.pixels, places.flatten(0, 1), targets.size, shared)
        yield labels.view(len(places), places.shape[1] * len(shared))


def _labels_on_grid(targets: Targets, size: tuple[int, int]) -> Tensor:
    """The target masks at ``size`` (h, w) by the nearest pixel, bool [M,T,h,w]."""
    (height, width), device = targets.size, targets.places.device
    rows = torch.arange(size[0], device=device) * height // size[0]
    columns = torch.arange(size[1], device=device) * width // size[1]
    y, x = (axis.flatten() for axis in torch.meshgrid(rows, columns, indexing="ij"))
    places = targets.places.flatten(0, 1)
    portions = places.split(max(1, _PIXELS // len(y)))
    labels = torch.cat([point_sample.read_mask(targets.pixels, part, y, x) for part in portions])
    return labels.view(*targets.places.shape[:2], *size)
