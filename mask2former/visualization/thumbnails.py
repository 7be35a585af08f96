"""Results and ground truth of any kind at the size of a thumbnail, where one segment per pixel says enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mask2former.structures.labels import LabelSet
from mask2former.structures.masks import rle_areas, rle_decode
from mask2former.visualization.colors import blend
from mask2former.visualization.draw import overlay_segments, rows_of
from mask2former.visualization.drawable import Drawable, Objects, PanopticMap

# H W image size, h w size of the thumbnail, K classes

_ALPHA = 0.65


@dataclass(frozen=True)
class Thumbnail:
    """Segments of a small picture.

    rows      position + 1 of each pixel's segment in `segments`, 0 for none; integers [h,w]
    segments  for each `category_id`, `isthing` and, if known, `iscrowd`
    complete  whether each pixel ought to have a segment, as in semantic and panoptic maps
    """

    rows: np.ndarray
    segments: Sequence[dict]
    complete: bool

    def draw(self, image: np.ndarray, labels: LabelSet) -> np.ndarray:
        """Over the image, uint8 [h,w,3] RGB, without names."""
        return overlay_segments(image, self.rows, self.segments, labels, _ALPHA)

    def draw_truth(self, image: np.ndarray, labels: LabelSet) -> np.ndarray:
        """As ground truth: what ought to have a segment and has none is dark."""
        return blend(self.draw(image, labels), np.zeros(3), _ALPHA, self.unlabelled)

    @property
    def unlabelled(self) -> np.ndarray:
        """Boolean [h,w]: pixels that ought to have a segment and have none."""
        return (self.rows == 0) & self.complete

    def pixels_of(self, num_classes: int) -> np.ndarray:
        """Pixels of each class, int64 [K]."""
        classes = np.array([num_classes, *(segment["category_id"] for segment in self.segments)])
        return np.bincount(classes[self.rows].ravel(), minlength=num_classes + 1)[:num_classes]


def thumbnail(drawable: Drawable, labels: LabelSet, longest: int) -> Thumbnail:
    """A result or ground truth taken at the centres of a grid whose longer side is `longest` pixels.

    Of objects that cover each other the smaller one shows.
    """
    if isinstance(drawable, PanopticMap):
        rows = rows_of(shrink(drawable.ids, longest), drawable.segments)
        return Thumbnail(rows.astype(np.int32), drawable.segments, complete=True)
    if isinstance(drawable, Objects):
        return _objects(drawable, longest)
    classes = shrink(drawable.classes, longest)
    known = (classes >= 0) & (classes < labels.num_classes)
    segments = [{"category_id": k, "isthing": False} for k in range(labels.num_classes)]
    return Thumbnail(np.where(known, classes + 1, 0).astype(np.int32), segments, complete=True)


def _objects(objects: Objects, longest: int) -> Thumbnail:
    ys, xs = _grid(objects.size, longest)
    rows = np.zeros((len(ys), len(xs)), dtype=np.int32)
    areas = rle_areas(objects.masks)
    for i in np.argsort(-areas.astype(np.int64), kind="stable"):
        rows[rle_decode(objects.masks[i])[ys[:, None], xs]] = i + 1
    crowds = objects.crowds if len(objects.crowds) else [False] * len(objects.classes)
    segments = [{"category_id": k, "isthing": True, "iscrowd": c} for k, c in zip(objects.classes, crowds, strict=True)]
    return Thumbnail(rows, segments, complete=False)


def shrink(labels: np.ndarray, longest: int) -> np.ndarray:
    """A label map [H,W] taken at the centres of a grid whose longer side is `longest`; a small one grows."""
    ys, xs = _grid(labels.shape, longest)
    return labels[ys[:, None], xs]


def _grid(size: tuple[int, ...], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and the columns of a map that a thumbnail shows."""
    scale = longest / max(size)
    ys, xs = (
        np.minimum(((np.arange(max(1, round(side * scale))) + 0.5) / scale).astype(int), side - 1) for side in size
    )
    return ys, xs
