"""Semantic and panoptic maps of one image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mask2former.data.inspection.findings import Tally
from mask2former.data.inspection.objects import TINY
from mask2former.data.reading import read_mask, read_panoptic
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

# H, W image size


def inspect_semantic(path: str, size: tuple[int, int] | None, names: Sequence[str], ignore_label: int) -> Tally:
    """Look through a semantic map.

    Args:
        path: the file.
        size: (H, W) of the image, None where it is not known.
        names: of the classes; empty: not known, so every id is taken.
        ignore_label: id of pixels without label.
    """
    tally = Tally()
    ids, counts = _values(read_mask, path, size, tally)
    unknown = []
    for value, pixels in zip(ids, counts):
        if value == ignore_label:
            continue
        if 0 <= value < len(names) or not names:
            tally.count(value, pixels)
        else:
            unknown.append(f"{value} ({pixels} pixels)")
    if unknown:
        tally.found(
            "class id", path, f"has the values {some(unknown)}; expected 0 to {len(names) - 1} or {ignore_label}"
        )
    tally.targets = len(tally.classes)
    return tally


def inspect_panoptic(
    path: str, segments: Sequence[Mapping], size: tuple[int, int] | None, names: Sequence[str]
) -> Tally:
    """Look through a panoptic map and the segments that are listed for it; arguments as for `inspect_semantic`."""
    tally = Tally()
    ids, counts = _values(read_panoptic, path, size, tally)
    pixels_of = {value: pixels for value, pixels in zip(ids, counts) if value}
    listed = Counter(segment["id"] for segment in segments)
    for value, times in listed.items():
        if times > 1:
            tally.found("duplicate id", path, f"has {times} segments of id {value} listed")
    for segment in segments:
        place, category = f"{path}, segment {segment['id']}", segment.get("category_id")
        known = isinstance(category, int) and (0 <= category < len(names) or not names)
        if not known:
            tally.found("class id", place, f"has the category {category!r}; there are {len(names)} classes")
        if not ids:  # the map is unreadable
            continue
        pixels = pixels_of.get(segment["id"], 0)
        _check_segment(segment, pixels, place, tally)
        if known and not segment.get("iscrowd", 0):
            tally.targets += pixels > 0
            tally.count(category, pixels)
    unlisted = [f"{value} ({pixels} pixels)" for value, pixels in pixels_of.items() if value not in listed]
    if unlisted:
        tally.found("unlisted segment", path, f"has the ids {some(unlisted)}, which segments_info does not list")
    return tally


def _check_segment(segment: Mapping, pixels: int, place: str, tally: Tally) -> None:
    area = segment.get("area")
    if pixels == 0:
        tally.found("empty annotation", place, "is listed, but has no pixel in the map")
    elif area is not None and area != pixels:
        tally.found("segment area", place, f"has {pixels} pixels in the map, but {area} are listed")
    elif pixels < TINY and not segment.get("iscrowd", 0):
        tally.found("tiny annotation", place, f"covers {pixels} pixels")


def _values(read, path: str, size: tuple[int, int] | None, tally: Tally) -> tuple[list[int], list[int]]:
    """The values of a map and the pixels of each; nothing, and a finding, where it cannot be read."""
    try:
        array = read(path)
    except UserError as error:
        tally.found("map", path, str(error))
        return [], []
    if size and array.shape != tuple(size):
        text = f"has {array.shape[0]}x{array.shape[1]} pixels (height x width), its image {size[0]}x{size[1]}"
        tally.found("size", path, text)
    values, counts = np.unique(array, return_counts=True)
    return values.tolist(), counts.tolist()
