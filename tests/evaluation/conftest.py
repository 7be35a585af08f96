"""Drawn objects with imperfect predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mask2former.structures import Instances, LabelSet, rle_decode, rle_encode

# class 1 is stuff; the category ids are not in the order of the classes
LABELS = LabelSet(("cat", "grass", "dog", "bird"), thing_ids=(0, 2, 3), dataset_ids=(7, 1, 3, 12))


@dataclass
class DrawnInstances:
    """A small data set: COCO's JSON, records with the same annotations, masks, and outputs of a model that errs.

    masks      annotation id -> bool [H,W]
    outputs    one for each record
    """

    labels: LabelSet
    coco: dict
    records: list[dict]
    masks: dict[int, np.ndarray]
    outputs: list[dict]

    def perfect(self) -> list[dict]:
        """Outputs that repeat the ground truth, crowd left out."""
        outputs = []
        for record in self.records:
            objects = [a for a in record["annotations"] if not a["iscrowd"]]
            masks = [self.masks[a["id"]] for a in objects]
            outputs.append(instances(masks, [a["category_id"] for a in objects], [1.0] * len(objects), record))
        return outputs


def instances(masks: list[np.ndarray], classes: list[int], scores: list[float], record: dict) -> dict:
    size = record["height"], record["width"]
    stacked = np.stack(masks) if masks else np.zeros((0, *size), bool)
    fields = {"pred_classes": torch.tensor(classes, dtype=torch.int64), "scores": torch.tensor(scores).double()}
    return {"instances": Instances(size, pred_masks=torch.from_numpy(stacked), **fields)}


def ellipse(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]]
    center, radius = rng.uniform((0, 0), size), np.exp(rng.uniform(1, 4.8)) * rng.uniform(0.7, 1.4, 2)
    return ((y - center[0]) / radius[0]) ** 2 + ((x - center[1]) / radius[1]) ** 2 < 1


def described(mask: np.ndarray, form: int) -> dict:
    """Segmentation as polygons (a triangle), runs or compressed runs, and the box and area of what it covers."""
    size = list(mask.shape)
    shape: list | dict = {"size": size, "counts": rle_encode(mask)["counts"]}
    if form == 0:
        x, y, w, h = coco_mask.toBbox(shape).tolist()
        shape = [[x, y, x + w, y + 0.3, x + w / 2, y + h]]
    elif form == 1:
        changes = np.flatnonzero(np.diff(np.r_[False, mask.ravel(order="F")]))
        shape = {"size": size, "counts": np.diff(np.r_[0, changes, mask.size]).tolist()}
    rle = rle_encode(drawn_mask(shape, mask.shape))
    return {"segmentation": shape, "bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle))}


def drawn_mask(shape: list | dict, size: tuple[int, int]) -> np.ndarray:
    if isinstance(shape, list):
        shape = coco_mask.merge(coco_mask.frPyObjects(shape, *size))
    return rle_decode(shape)


@pytest.fixture
def drawn() -> DrawnInstances:
    """Nine images, one without objects; tied scores, crowd, duplicates, missed objects, empty and wrong predictions."""
    rng = np.random.default_rng(3)
    coco = {
        "images": [],
        "annotations": [],
        "categories": [{"id": LABELS.dataset_ids[k], "name": LABELS.names[k]} for k in LABELS.thing_ids],
    }
    data = DrawnInstances(LABELS, coco, [], {}, [])
    for image_id in (31, 5, 12, 8, 40, 2, 77, 19, 20):  # not in order
        size = int(rng.integers(90, 220)), int(rng.integers(90, 220))
        image = {"id": image_id, "file_name": f"{image_id}.jpg", "height": size[0], "width": size[1]}
        record = {"file_name": f"{image_id}.jpg", "image_id": image_id, "height": size[0], "width": size[1]}
        record["annotations"], predicted = [], []
        for _ in range(0 if image_id == 8 else 5):
            k, mask = int(rng.choice(LABELS.thing_ids)), ellipse(rng, size)
            annotation = {"id": len(coco["annotations"]) + 1, "iscrowd": int(rng.random() < 0.15)}
            annotation |= described(mask, form=2 if annotation["iscrowd"] else int(rng.integers(3)))
            data.masks[annotation["id"]] = mask = drawn_mask(annotation["segmentation"], size)
            coco["annotations"].append({**annotation, "image_id": image_id, "category_id": LABELS.dataset_ids[k]})
            record["annotations"].append({**annotation, "bbox_mode": 1, "category_id": k})
            for _ in range(int(rng.integers(0, 4))):
                moved = np.roll(mask, tuple(rng.integers(-4, 5, 2)), (0, 1))
                predicted.append((moved, k if rng.random() < 0.85 else int(rng.integers(4))))
        predicted.append((np.zeros(size, bool), 0))
        scores = rng.integers(0, 6, len(predicted)) / 5
        coco["images"].append(image)
        data.records.append(record)
        data.outputs.append(instances([m for m, _ in predicted], [k for _, k in predicted], scores.tolist(), record))
    return data
