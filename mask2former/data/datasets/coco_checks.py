"""What can be wrong with the objects of a COCO file and with the files that it names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import isfinite

from mask2former.utils.errors import UserError
from mask2former.utils.text import some


def polygon_problem(polygon: object) -> str:
    """What is wrong with one polygon [x0, y0, x1, y1, ...]; empty when it can be drawn."""
    if not isinstance(polygon, list):
        return f"a polygon is {polygon!r}; expected a list of polygons, each a list [x0, y0, x1, y1, ...]"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"a polygon has {len(polygon)} numbers; expected x and y of at least three points"
    try:
        if isfinite(sum(polygon)):
            return ""
    except TypeError:
        pass
    return "a polygon holds something else than finite numbers"


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
    if size and list(segmentation["size"]) != list(size):
        return f"the RLE has the size {list(segmentation['size'])} (height, width), its image {list(size)}"
    counts = segmentation["counts"]
    if isinstance(counts, list):
        height, width = segmentation["size"]
        if sum(counts) != height * width:
            return f"the RLE counts {sum(counts)} pixels for {height}x{width}"
    elif not isinstance(counts, (str, bytes)):
        return f"the RLE has counts of type {type(counts).__name__}"
    return ""


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
