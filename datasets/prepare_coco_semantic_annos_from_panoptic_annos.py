#!/usr/bin/env python
"""Semantic maps of COCO 2017 with all 133 classes, from its panoptic annotations.

    python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py

reads coco/annotations/panoptic_{train,val}2017.json and coco/panoptic_{train,val}2017, writes
coco/panoptic_semseg_{train,val}2017: PNG, classes 0 to 132 (80 things, then 53 stuff), 255 where nothing is labelled.
"""

from __future__ import annotations

from pathlib import Path

from _coco_panoptic import write_semantic
from _prepare import command_line

from mask2former.structures import builtin_labels


def prepare(root: Path, workers: int) -> None:
    """Write the maps below `root`, those that are there already excepted."""
    labels = builtin_labels("coco_2017_train_panoptic")
    class_of = {category: k for k, category in enumerate(labels.dataset_ids)}
    write_semantic(root, workers, "panoptic_semseg_{}", class_of)


if __name__ == "__main__":
    command_line(prepare, __doc__)
