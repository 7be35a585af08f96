#!/usr/bin/env python
"""COCO panoptic JSON and PNG of ADE20K: stuff from the semantic maps, things from the instance annotations.

    python datasets/prepare_ade20k_pan_seg.py

reads images, annotations and annotations_instance of ADEChallengeData2016, writes ade20k_panoptic_{train,val}.json and
ade20k_panoptic_{train,val} beside them. Category ids are those of SceneParsing-150 less one; image ids are file stems.
The two sources overlap: things are painted over stuff. Pixels of a thing class in no instance stay void.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _ade20k import SCENE_LAYOUT, SCENE_SOURCE, SPLITS, box_of, image_and_instances, instance_masks
from _prepare import absent, command_line, parallel, require, save_image, save_json

from mask2former.data.datasets.checks import check_mask_size
from mask2former.data.reading import read_mask, read_panoptic, read_size
from mask2former.structures import LabelSet, builtin_labels

_DIVISOR = 1000  # segment id = (category id + 1) * 1000 + number of the thing; + 1, because id 0 is void
_LABELS = "ade20k_panoptic_train"


def prepare(root: Path, workers: int) -> None:
    """Write PNG and JSON files below `root`, those that are there already excepted."""
    ade = root / "ADEChallengeData2016"
    outputs = [(split, ade / f"ade20k_panoptic_{split}.json") for split in SPLITS]
    for split, output in absent(outputs, lambda job: job[1], "ade20k_panoptic_*.json"):
        pairs = image_and_instances(ade, SPLITS[split])
        semantic = require(ade / "annotations" / SPLITS[split], SCENE_LAYOUT, SCENE_SOURCE)
        jobs = [
            (image, semantic / things.name, things, output.with_suffix("") / f"{image.stem}.png")
            for image, things in pairs
        ]
        parallel(_draw, absent(jobs, lambda job: job[3], output.stem), workers, output.stem)
        described = parallel(_describe, [(job[0], job[3]) for job in jobs], workers, output.name)
        images, annotations = ([pair[i] for pair in described] for i in (0, 1))
        save_json(
            {"images": images, "annotations": annotations, "categories": _categories(builtin_labels(_LABELS))}, output
        )


def _draw(job: tuple[Path, Path, Path, Path]) -> None:
    """One panoptic PNG from an image's semantic and instance maps."""
    _, semantic, instances, output = job
    scene = read_mask(semantic) - 1  # [H,W], -1: other
    size, things = instance_masks(instances)
    check_mask_size(size, scene.shape, instances)
    stuff = np.isin(scene, builtin_labels(_LABELS).stuff_ids)
    ids = np.where(stuff, (scene + 1) * _DIVISOR, 0)
    for number, (category, mask) in enumerate(things, start=1):
        ids[mask] = (category + 1) * _DIVISOR + number
    save_image(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8), output)


def _describe(job: tuple[Path, Path]) -> tuple[dict, dict]:
    """The JSON entries of an image and of its segments, read back from the panoptic PNG."""
    image, panoptic = job
    ids = read_panoptic(panoptic)
    check_mask_size(ids.shape, read_size(image), panoptic)
    segments = []
    for segment_id in np.unique(ids[ids > 0]).tolist():
        mask = ids == segment_id
        segment = {"id": segment_id, "category_id": segment_id // _DIVISOR - 1, "iscrowd": 0}
        segments.append({**segment, "area": int(mask.sum()), "bbox": box_of(mask)})
    height, width = ids.shape
    return (
        {"id": image.stem, "file_name": image.name, "height": height, "width": width},
        {"image_id": image.stem, "file_name": panoptic.name, "segments_info": segments},
    )


def _categories(labels: LabelSet) -> list[dict]:
    things = set(labels.thing_ids)
    return [
        {"id": k, "name": labels.names[k], "isthing": int(k in things), "color": list(labels.colors[k])}
        for k in range(labels.num_classes)
    ]


if __name__ == "__main__":
    command_line(prepare, __doc__)
