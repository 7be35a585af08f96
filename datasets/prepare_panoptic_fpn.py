#!/usr/bin/env python
"""Stuff maps of COCO 2017 as Panoptic FPN uses them, from its panoptic annotations.

    python datasets/prepare_panoptic_fpn.py

reads coco/annotations/panoptic_{train,val}2017.json and coco/panoptic_{train,val}2017, writes
coco/panoptic_stuff_{train,val}2017: PNG, 0 for every thing, 1 to 53 for stuff, 255 where nothing is labelled.
"""

from __future__ import annotations

from pathlib import Path

from _coco_panoptic import write_semantic
from _prepare import command_line

from mask2former.structures import builtin_labels


def prepare(root: Path, workers: int) -> None:
    """Write the maps below `root`, those that are there already excepted."""
    panoptic, stuff = (builtin_labels(f"coco_2017_train_panoptic{end}") for end in ("", "_stuffonly"))
    class_of = {panoptic.dataset_ids[k]: 0 for k in panoptic.thing_ids}
    class_of |= {category: k for k, category in enumerate(stuff.dataset_ids) if k}  # class 0 is "things"
    write_semantic(root, workers, "panoptic_stuff_{}", class_of)


if __name__ == "__main__":
    command_line(prepare, __doc__)
