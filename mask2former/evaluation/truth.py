"""Ground truth of a record as maps of class or segment ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mask2former.data.reading import read_mask, read_panoptic
from mask2former.evaluation.pq import segment_places
from mask2former.utils.errors import UserError

# H, W image size


def semantic_truth(record: dict, ignore_label: int) -> tuple[np.ndarray, str]:
    """Class of each pixel, int32 [H,W], and the file it comes from.

    A record without `sem_seg_file_name` gets it from its panoptic map: crowd regions have their class, void is
    `ignore_label`.

    Raises:
        UserError: the record has neither map, or a file is broken or holds segments that are not listed.
    """
    if path := record.get("sem_seg_file_name"):
        return read_mask(path), path
    if path := record.get("pan_seg_file_name"):
        return classes_of_segments(read_panoptic(path), record["segments_info"], ignore_label, path), path
    raise UserError(
        f"{record['file_name']} has no ground truth (neither sem_seg_file_name nor pan_seg_file_name in its record), "
        "so it cannot be evaluated. Name a data set with masks in DATASETS.TEST."
    )


def classes_of_segments(ids: np.ndarray, segments: Sequence[dict], void_class: int, path: str) -> np.ndarray:
    """Class of each pixel, int32 [H,W], of a panoptic map.

    Args:
        ids: integers [H,W], segment ids; 0 is void.
        segments: dicts with `id` and `category_id`.
        void_class: class of the pixels without a segment.
        path: where the ids come from, for the message.

    Raises:
        UserError: the map has an id that is not listed.
    """
    try:
        places = segment_places(ids, segments, "ground truth")
    except ValueError as error:
        raise UserError(f"{path}: {error}. Correct the PNG file or the JSON file that lists its segments.") from error
    return np.array([void_class, *(s["category_id"] for s in segments)], dtype=np.int32)[places]
