#!/usr/bin/env python
"""COCO instance JSON of ADE20K's 100 things.

    python datasets/prepare_ade20k_ins_seg.py

reads images and annotations_instance of ADEChallengeData2016, writes ade20k_instance_{train,val}.json beside them.
Category ids are those of SceneParsing-150 less one (bed: 7), as in the panoptic JSON; image ids are file stems.
"""

from __future__ import annotations

from pathlib import Path

from _ade20k import SPLITS, box_of, image_and_instances, instance_masks
from _prepare import absent, command_line, parallel, save_json

from mask2former.data.datasets.checks import check_mask_size
from mask2former.data.reading import read_size
from mask2former.structures import builtin_labels, rle_encode


def prepare(root: Path, workers: int) -> None:
    """Write the JSON files below `root`, those that are there already excepted."""
    ade = root / "ADEChallengeData2016"
    outputs = [(split, ade / f"ade20k_instance_{split}.json") for split in SPLITS]
    for split, output in absent(outputs, lambda job: job[1], "ade20k_instance_*.json"):
        pairs = image_and_instances(ade, SPLITS[split])
        images, annotations = [], []
        for image, found in parallel(_annotate, pairs, workers, output.name):
            images.append(image)
            for annotation in found:
                annotations.append({"id": len(annotations) + 1, "image_id": image["id"], **annotation})
        labels = builtin_labels("ade20k_instance_train")
        categories = [{"id": i, "name": name} for i, name in zip(labels.dataset_ids, labels.names, strict=True)]
        save_json({"images": images, "annotations": annotations, "categories": categories}, output)


def _annotate(pair: tuple[Path, Path]) -> tuple[dict, list[dict]]:
    """The JSON entry of an image, and its annotations without ids."""
    image, instances = pair
    height, width = read_size(image)
    size, things = instance_masks(instances)
    check_mask_size(size, (height, width), instances)
    annotations = [
        {
            "category_id": category,
            "iscrowd": 0,
            "area": int(mask.sum()),
            "bbox": box_of(mask),
            "segmentation": rle_encode(mask),
        }
        for category, mask in things
    ]
    return {"id": image.stem, "file_name": image.name, "height": height, "width": width}, annotations


if __name__ == "__main__":
    command_line(prepare, __doc__)
