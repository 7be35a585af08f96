#!/usr/bin/env python
"""Semantic maps of ADE20K (SceneParsing, 150 classes) with ids that start at 0.

    python datasets/prepare_ade20k_sem_seg.py

reads ADEChallengeData2016/annotations/{training,validation}, writes
ADEChallengeData2016/annotations_detectron2/{training,validation}: every id less one, so that 0 ("other") becomes 255.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _ade20k import SCENE_LAYOUT, SCENE_SOURCE, SPLITS, files_of
from _prepare import absent, command_line, parallel, save_image

from mask2former.data.reading import read_mask


def prepare(root: Path, workers: int) -> None:
    """Write the maps below `root`, those that are there already excepted."""
    ade = root / "ADEChallengeData2016"
    for split in SPLITS.values():
        masks = files_of(ade / "annotations" / split, ".png", SCENE_LAYOUT, SCENE_SOURCE)
        jobs = [(mask, ade / "annotations_detectron2" / split / mask.name) for mask in masks]
        jobs = absent(jobs, lambda job: job[1], f"annotations_detectron2/{split}")
        parallel(_convert, jobs, workers, f"annotations_detectron2/{split}")


def _convert(job: tuple[Path, Path]) -> None:
    source, output = job
    save_image((read_mask(source) - 1).astype(np.uint8), output)  # -1 wraps around to 255


if __name__ == "__main__":
    command_line(prepare, __doc__)
