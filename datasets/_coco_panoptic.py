"""COCO panoptic PNG and JSON -> semantic maps, for the scripts that differ in the classes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from _prepare import absent, parallel, read_json, require, save_image

from mask2former.data.reading import read_panoptic
from mask2former.utils.errors import UserError

_SPLITS = ("val2017", "train2017")
_VOID = 255  # pixels that no segment covers
_LAYOUT = "coco/annotations/panoptic_{train,val}2017.json beside the PNG files in coco/panoptic_{train,val}2017"
_SOURCE = "https://cocodataset.org/#download (2017 Panoptic Train/Val annotations; unpack the two archives inside, too)"


def write_semantic(root: Path, workers: int, folder: str, class_of: Mapping[int, int]) -> None:
    """Write one semantic PNG per panoptic PNG of COCO 2017, train and val.

    Args:
        root: folder with `coco`.
        workers: processes.
        folder: below `coco`, with `{}` for the split.
        class_of: value of the semantic map per category id of the JSON; pixels of no segment become 255.

    Raises:
        UserError: an input is missing, broken, or has a category without class.
    """
    coco = root / "coco"
    for split in _SPLITS:
        listed = require(coco / "annotations" / f"panoptic_{split}.json", _LAYOUT, _SOURCE)
        require(coco / f"panoptic_{split}", _LAYOUT, _SOURCE)
        jobs = []
        for annotation in read_json(listed)["annotations"]:
            name, segments = annotation["file_name"], annotation["segments_info"]
            values = {s["id"]: _class(class_of, s["category_id"], listed) for s in segments}
            jobs.append((coco / f"panoptic_{split}" / name, values, coco / folder.format(split) / name))
        jobs = absent(jobs, lambda job: job[2], folder.format(split))
        parallel(_convert, jobs, workers, folder.format(split))


def _class(class_of: Mapping[int, int], category: int, path: Path) -> int:
    if category not in class_of:
        raise UserError(f"{path} has the category id {category}, which is not one of COCO panoptic's 133.")
    return class_of[category]


def _convert(job: tuple[Path, dict[int, int], Path]) -> None:
    source, values, output = job
    save_image(semantic_map(read_panoptic(source), values), output)


def semantic_map(ids: np.ndarray, values: Mapping[int, int]) -> np.ndarray:
    """uint8 [H,W]: the value of each pixel's segment id (integers [H,W]), 255 where `values` does not have it."""
    if not values:
        return np.full(ids.shape, _VOID, np.uint8)
    known = np.array(sorted(values.items()))  # [S,2]
    place = np.searchsorted(known[:, 0], ids).clip(max=len(known) - 1)
    return np.where(known[place, 0] == ids, known[place, 1], _VOID).astype(np.uint8)
