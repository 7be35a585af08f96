"""Cityscapes: images and fine annotations in one folder per city."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from mask2former.data.catalog import MetadataCatalog
from mask2former.data.datasets.checks import in_threads
from mask2former.data.datasets.coco_checks import check_files
from mask2former.data.datasets.coco_panoptic import load_coco_panoptic_json
from mask2former.data.datasets.objects import XYWH_ABS
from mask2former.data.reading import read_mask
from mask2former.structures import builtin_labels
from mask2former.utils.errors import UserError

# H, W: size of the image; R: runs of equal ids, column by column

_IMAGE_SUFFIX = "_leftImg8bit.png"
_SCRIPT = "`python datasets/prepare_cityscapes.py` makes them"


@dataclass(frozen=True)
class CityscapesSemantic:
    """Source of records with semantic maps (`*_gtFine_labelTrainIds.png`); equal settings make equal sources."""

    image_dir: str
    gt_dir: str

    def __call__(self) -> list[dict]:
        return [
            {"file_name": image, "image_id": image_id, "sem_seg_file_name": path}
            for image, image_id, path in _pairs(self.image_dir, self.gt_dir, "labelTrainIds", _SCRIPT)
        ]


@dataclass(frozen=True)
class CityscapesInstances:
    """Source of records with objects, read from `*_gtFine_instanceIds.png`; equal settings make equal sources."""

    image_dir: str
    gt_dir: str

    def __call__(self) -> list[dict]:
        pairs = _pairs(self.image_dir, self.gt_dir, "instanceIds", "they are part of gtFine_trainvaltest.zip")
        found = in_threads(instances_of, [path for _, _, path in pairs])
        records, count = [], 0
        for (image, image_id, _), objects in zip(pairs, found, strict=True):
            numbered = [{"id": count + i, **annotation} for i, annotation in enumerate(objects, start=1)]
            count += len(objects)
            records.append({"file_name": image, "image_id": image_id, "annotations": numbered})
        return records


@dataclass(frozen=True)
class CityscapesPanoptic:
    """Source of records with panoptic segments and semantic maps; equal settings make equal sources."""

    panoptic_json: str
    image_root: str
    panoptic_root: str
    gt_dir: str
    dataset_name: str

    def __call__(self) -> list[dict]:
        # the file's own image names lack the folder of the city, and exist nowhere
        found = load_coco_panoptic_json(
            self.panoptic_json,
            self.image_root,
            self.panoptic_root,
            MetadataCatalog.get(self.dataset_name),
            image_name=lambda image: f"{_city(image['id'])}/{image['id']}{_IMAGE_SUFFIX}",
        )
        maps = [_label_file(self.gt_dir, record["image_id"], "labelTrainIds") for record in found]
        check_files(maps, f"semantic maps below {self.gt_dir}", f"{_SCRIPT}.")
        return [{**record, "sem_seg_file_name": path} for record, path in zip(found, maps, strict=True)]


def _city(image_id: str) -> str:
    return image_id.partition("_")[0]


def _label_file(gt_dir: str, image_id: str, kind: str) -> str:
    return os.path.join(gt_dir, _city(image_id), f"{image_id}_gtFine_{kind}.png")


def _pairs(image_dir: str, gt_dir: str, kind: str, origin: str) -> list[tuple[str, str, str]]:
    """(image, image id, label file) of every image, by city; `origin` says where missing label files come from."""
    images = [
        os.path.join(image_dir, city, name)
        for city in sorted(os.listdir(image_dir))
        if os.path.isdir(os.path.join(image_dir, city))
        for name in sorted(os.listdir(os.path.join(image_dir, city)))
        if name.endswith(_IMAGE_SUFFIX)
    ]
    if not images:
        raise UserError(
            f"{image_dir} holds no <city>/*{_IMAGE_SUFFIX}. Unpack leftImg8bit_trainvaltest.zip there, or correct "
            "$DETECTRON2_DATASETS."
        )
    ids = [os.path.basename(image)[: -len(_IMAGE_SUFFIX)] for image in images]
    files = [_label_file(gt_dir, image_id, kind) for image_id in ids]
    check_files(files, f"label files below {gt_dir}", f"{origin[0].upper()}{origin[1:]}.")
    return list(zip(images, ids, files, strict=True))


def instances_of(path: str) -> list[dict]:
    """Objects of an instance map: ids of 1000 and more are 1000 x label + number, labels alone groups of objects.

    Args:
        path: PNG with 16-bit ids, as published.

    Returns:
        annotations without "id", by ascending id of the map; groups have "iscrowd" 1; "segmentation" is an RLE.
    """
    numbers = {own: i for i, own in enumerate(builtin_labels("cityscapes_fine_instance_seg_val").dataset_ids)}
    found = []
    for value, rle in runs_by_id(read_mask(path)).items():
        label = value // 1000 if value >= 1000 else value
        if label in numbers:
            found.append(
                {
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "bbox_mode": XYWH_ABS,
                    "category_id": numbers[label],
                    "iscrowd": int(value < 1000),
                    "area": float(coco_mask.area(rle)),
                    "segmentation": {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")},
                }
            )
    return found


def runs_by_id(ids: np.ndarray) -> dict[int, dict]:
    """id -> COCO RLE of its pixels, ascending, for all ids of an int map [H,W], in one pass over the pixels."""
    height, width = ids.shape
    flat = ids.T.reshape(-1)  # COCO counts column by column
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])  # [R]
    ends, values = np.append(starts[1:], flat.size), flat[starts]
    order = np.argsort(values, kind="stable")
    present, first = np.unique(values[order], return_index=True)
    found = {}
    for value, runs in zip(present.tolist(), np.split(order, first[1:]), strict=True):
        edges = np.stack([starts[runs], ends[runs]], axis=1).reshape(-1)  # outside, inside, outside ... begin here
        counts = np.diff(edges, prepend=0, append=flat.size)
        rle = {"size": [height, width], "counts": counts.tolist()}
        found[value] = coco_mask.frPyObjects(rle, height, width)
    return found
