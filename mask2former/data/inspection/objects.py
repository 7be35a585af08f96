"""Objects with masks of their own: polygons, RLE and bitmasks of one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools import mask as coco_mask

from mask2former.data.datasets.coco_checks import polygon_problem, rle_size, segmentation_problem
from mask2former.data.inspection.findings import Tally
from mask2former.structures import rle_runs

# H, W image size

TINY = 16  # pixels: one cell of masks at stride 4, where the model predicts them
_FAR = 0.1  # share of the longer side that a polygon may reach beyond the image


def inspect_objects(
    annotations: Sequence[Mapping], file_name: str, size: tuple[int, int] | None, names: Sequence[str]
) -> Tally:
    """Look through the annotations of one image.

    Args:
        annotations: as in records; a category that is no class number is one that the reader does not know.
        file_name: of the image, for messages.
        size: (H, W); None where neither image nor record tells it: masks are then taken as they are.
        names: of the classes; empty: not known, so every class number is taken.
    """
    tally = Tally()
    for position, annotation in enumerate(annotations):
        place = f"{file_name}, annotation {annotation.get('id', position)!r}"
        category = annotation.get("category_id")
        known = isinstance(category, int) and (0 <= category < len(names) or not names)
        if not known:
            tally.found("class id", place, f"has the category {category!r}; there are {len(names)} classes")
        pixels = _visible_pixels(annotation.get("segmentation"), place, size, tally)
        crowd = bool(annotation.get("iscrowd", 0))
        if pixels is None or not known or crowd:
            continue
        tally.targets += pixels > 0
        tally.count(category, pixels)
        if pixels == 0:
            tally.found("empty annotation", place, "covers no pixel of the image")
        elif pixels < TINY:
            tally.found("tiny annotation", place, f"covers {pixels} pixels")
    return tally


def _visible_pixels(segmentation: object, place: str, size: tuple[int, int] | None, tally: Tally) -> int | None:
    """Pixels inside the image; None where something is wrong with the mask, which the tally then has."""
    if segmentation is None or (isinstance(segmentation, list) and not segmentation):
        tally.found("no mask", place, "has no segmentation")
        return None
    if isinstance(segmentation, np.ndarray):
        if size and segmentation.shape != size:
            tally.found("size", place, f"has a mask of {_size(segmentation.shape)}, its image has {_size(size)}")
            return None
        return int(np.count_nonzero(segmentation))
    if isinstance(segmentation, list):
        return _polygon_pixels(segmentation, place, size, tally)
    return _rle_pixels(segmentation, place, size, tally)


def _polygon_pixels(polygons: list, place: str, size: tuple[int, int] | None, tally: Tally) -> int | None:
    problems = [problem for polygon in polygons if (problem := polygon_problem(polygon) or _shape(polygon, size))]
    for problem in problems:
        tally.found("polygon", place, problem)
    if problems or size is None:
        return None
    return int(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))))


def _shape(polygon: list[float], size: tuple[int, int] | None) -> str:
    """What is wrong with the place and the shape of a polygon that can be drawn; empty when nothing is."""
    x, y = np.asarray(polygon, np.float64).reshape(-1, 2).T
    if abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) < 1e-6:  # twice the area, by the shoelace formula
        return f"a polygon of {len(x)} points has no area"
    if size is None:
        return ""
    margin = _FAR * max(size)
    reach = max(-x.min(), x.max() - size[1], -y.min(), y.max() - size[0])
    if reach <= margin:
        return ""
    return f"a polygon reaches {reach:.0f} pixels beyond the image of {_size(size)}; it may belong to another size"


def _rle_pixels(rle: object, place: str, size: tuple[int, int] | None, tally: Tally) -> int | None:
    if isinstance(rle, dict) and size and rle_size(rle) and rle_size(rle) != tuple(size):
        tally.found("size", place, f"has an RLE of {_size(rle['size'])}, its image has {_size(size)}")
        return None
    if problem := segmentation_problem(rle, size):
        tally.found("RLE", place, problem)
        return None
    return int(rle_runs(rle["counts"])[1::2].sum())


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]} pixels (height x width)"
