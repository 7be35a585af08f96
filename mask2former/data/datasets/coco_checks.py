"""What can be wrong with the objects of a COCO file and with the files that it names."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from math import isfinite

from mask2former.structures import rle_runs
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

# pixels from the upper left corner that a polygon may reach: pycocotools draws edges in 32-bit fifths of a pixel,
# and ends the process where a coordinate does not fit
_FARTHEST = 2**18
_CROWD = {None: 0, 0: 0, 1: 1, "0": 0, "1": 1}  # what "iscrowd" may be


def polygon_problem(polygon: object) -> str:
    """What is wrong with one polygon [x0, y0, x1, y1, ...]; empty when it can be drawn."""
    if not isinstance(polygon, list):
        return f"a polygon is {polygon!r}; expected a list of polygons, each a list [x0, y0, x1, y1, ...]"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"a polygon has {len(polygon)} numbers; expected x and y of at least three points"
    if not _are_finite(polygon):
        return "a polygon holds something else than finite numbers"
    if max(polygon) > _FARTHEST or min(polygon) < -_FARTHEST:
        return f"a polygon reaches from {min(polygon):g} to {max(polygon):g}; no image is that large"
    return ""


def _are_finite(values: Sequence) -> bool:
    try:
        return isfinite(sum(values))
    except (TypeError, OverflowError):  # text among them, or a whole number of hundreds of digits
        return False


def segmentation_problem(segmentation: object, size: tuple[int, int] | None) -> str:
    """What is wrong with the mask of an object, in COCO's forms; empty when nothing is.

    Args:
        segmentation: a list of polygons, or an RLE: {"size": [H, W], "counts": list, str or bytes}.
        size: (H, W) of the image; None where it is not known yet.
    """
    if isinstance(segmentation, list):
        return next(filter(None, map(polygon_problem, segmentation)), "")
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return f"the segmentation is {str(segmentation)[:60]!r}; expected polygons, or an RLE with size and counts"
    stated, counts = rle_size(segmentation), segmentation["counts"]
    if not stated or (size and stated != tuple(size)):
        its_image = f", its image {list(size)}" if size else ""
        return f"the RLE has the size {segmentation['size']} (height, width){its_image}"
    if not isinstance(counts, (list, str, bytes)):
        return f"the RLE has counts of type {type(counts).__name__}"
    if isinstance(counts, list) and not _are_finite(counts):
        return "the RLE has counts that are no numbers"
    runs = rle_runs(counts)
    if runs.sum() != stated[0] * stated[1]:
        return f"the RLE counts {runs.sum()} pixels for {stated[0]}x{stated[1]}"
    return "the RLE has negative counts" if runs.min() < 0 else ""


def rle_size(rle: Mapping) -> tuple[int, int] | None:
    """(H, W) that an RLE states; None where it states no two numbers above 0."""
    size = rle.get("size")
    numbers = isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(n, (int, float)) for n in size)
    return (size[0], size[1]) if numbers and min(size) > 0 else None


def measures_problem(annotation: Mapping) -> str:
    """What is wrong with "bbox" and "area" of an annotation, which may be missing; empty when nothing is."""
    bbox, area = annotation.get("bbox"), annotation.get("area")
    if bbox is not None and not (isinstance(bbox, list) and len(bbox) in (0, 4) and _are_finite(bbox)):
        return f"the bbox is {bbox!r}; expected four finite numbers x, y, width, height, or none"
    if area is not None and not _are_finite([area]):
        return f"the area is {area!r}; expected a finite number, or none"
    return ""


def crowd_flag(entry: Mapping) -> int | None:
    """1 for an annotation or segment that is a crowd, 0 for one that is not or does not say; None for anything else."""
    value = entry.get("iscrowd")
    return _CROWD.get(value) if isinstance(value, Hashable) else None


class Listing:
    """Whether files exist, told from one listing per folder: asking for each of 118,000 images takes a minute on disks
    of a network."""

    def __init__(self):
        self.folders: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self.folders:
            there = os.path.isdir(folder or ".")
            self.folders[folder] = frozenset(os.listdir(folder or ".") if there else ())
        return name in self.folders[folder]


def check_files(paths: Sequence[str], what: str, remedy: str) -> None:
    """Raise UserError where some of the files do not exist.

    Args:
        paths: files; `what` they are, for the message ("images").
        remedy: what to correct, a sentence.
    """
    listing = Listing()
    absent = [path for path in paths if path not in listing]
    if absent:
        folders = [folder for folder in listing.folders if not os.path.isdir(folder or ".")]
        problem = f"; no such folder: {some(folders)}" if folders else ""
        raise UserError(f"{len(absent)} of {len(paths)} {what} do not exist: {some(absent)}{problem}. {remedy}")
