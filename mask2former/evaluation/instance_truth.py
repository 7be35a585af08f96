"""Ground truth of instance segmentation: from a COCO file, or from the records of the images."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask2former.data.datasets.coco_json import CocoFile
from mask2former.data.reading import read_panoptic
from mask2former.evaluation.encoding import EncodedMasks, encode_masks
from mask2former.evaluation.objects import ImageObjects
from mask2former.structures import coco_rle
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

# H, W image size

# columns of true objects, named as in COCO's annotations
TRUTH_COLUMNS = ("category_id", "iscrowd", "area", "bbox")

_XYXY_ABS = 0  # detectron2's BoxMode of corners; that of COCO's boxes, x, y, width, height, is 1


def truth_of_record(record: dict, category_ids: Mapping[int, int], size: tuple[int, int]) -> ImageObjects:
    """The true objects of an image: its `annotations`, or without these the things of its panoptic map.

    Args:
        record: with `image_id` and `file_name`, and `annotations` (dicts with `category_id`, `segmentation`, and
            perhaps `iscrowd`, `area`, `bbox`) or `pan_seg_file_name` and `segments_info`. Annotations without a mask
            are left out.
        category_ids: class number -> category id of the classes that have instances; objects of others are left out.
        size: (H, W) of the image.

    Raises:
        UserError: no ground truth, or masks of another size.
    """
    objects = record.get("segments_info") if record.get("annotations") is None else record["annotations"]
    if objects is None:
        raise UserError(
            f"{record['file_name']} has no ground truth of instances (neither annotations nor segments_info in its "
            "record), so it cannot be evaluated. Name a data set with instances in DATASETS.TEST."
        )
    objects = [described for described in objects if described["category_id"] in category_ids]
    if record.get("annotations") is None:
        masks = _masks_of_segments(record["pan_seg_file_name"], objects, size)
    else:
        objects = [described for described in objects if has_mask(described)]
        masks = _masks_of_annotations(record["file_name"], objects, size)
    boxes, areas = masks.boxes.copy(), masks.areas.astype(np.float64)
    for i, described in enumerate(objects):
        boxes[i] = boxes[i] if described.get("bbox") is None else _xywh(described)
        areas[i] = areas[i] if described.get("area") is None else described["area"]
    columns = {
        "category_id": np.array([category_ids[described["category_id"]] for described in objects], dtype=np.int64),
        "iscrowd": np.array([int(described.get("iscrowd", 0)) for described in objects], dtype=np.int64),
        "area": areas,
        "bbox": boxes,
    }
    return ImageObjects(record["image_id"], masks, columns)


def truth_of_file(
    coco: CocoFile, category_ids: Collection[int], sizes: Mapping[Hashable, tuple[int, int]]
) -> list[dict]:
    """Annotations of some images in a COCO file; those without a mask are left out.

    Args:
        coco: the file.
        category_ids: those that the file must have.
        sizes: (H, W) by image id.

    Returns:
        dicts with `id` from 1, `image_id`, the image's number in `sizes` from 1, `segmentation` as in the file, and
        all of `TRUTH_COLUMNS`.

    Raises:
        UserError: the file does not have these images or categories, or has masks of another size.
    """
    if unknown := [image_id for image_id in sizes if image_id not in coco.by_image]:
        raise UserError(
            f"{coco.path} does not list the images {some(unknown)} that were evaluated, but others such as "
            f"{some([image['id'] for image in coco.images[:3]])}. Correct json_file where the data set is registered, "
            "or the image_id of its records."
        )
    if missing := set(category_ids) - {category["id"] for category in coco.categories}:
        raise UserError(
            f"{coco.path} has no category of the ids {some(sorted(missing))}, which classes of the data set have. "
            "Correct json_file, or thing_dataset_id_to_contiguous_id, where the data set is registered."
        )
    for image in coco.images:
        stated = image.get("height"), image.get("width")
        size = sizes.get(image["id"], stated)
        if None not in stated and stated != size:
            raise _wrong_size(f"{coco.path}: image {image['id']!r}", stated, size)
    found = []
    for number, (image_id, size) in enumerate(sizes.items(), 1):
        for annotation in coco.by_image[image_id]:
            if has_mask(annotation):
                check_rle_size(annotation["segmentation"], size, f"{coco.path}: annotation {annotation.get('id')!r}")
                found.append({"id": len(found) + 1, "image_id": number, **_complete(annotation, size)})
    return found


def _complete(annotation: dict, size: tuple[int, int]) -> dict:
    measured = {}
    if annotation.get("bbox") is None or annotation.get("area") is None:
        rle = coco_rle(annotation["segmentation"], size)
        measured = {"area": float(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist()}
    given = {key: annotation[key] for key in (*TRUTH_COLUMNS, "segmentation") if annotation.get(key) is not None}
    return {"iscrowd": 0, **measured, **given}


def _masks_of_annotations(file_name: str, annotations: Sequence[dict], size: tuple[int, int]) -> EncodedMasks:
    rles = []
    for annotation in annotations:
        rles.append(coco_rle(annotation["segmentation"], size))
        check_rle_size(rles[-1], size, f"Annotation {annotation.get('id')!r} of {file_name}")
    return EncodedMasks.from_rles(rles, size)


def _masks_of_segments(path: str, segments: Sequence[dict], size: tuple[int, int]) -> EncodedMasks:
    ids = read_panoptic(path)
    if ids.shape != size:
        raise _wrong_size(path, ids.shape, size)
    # one by one: together they would take as much memory as all masks at full size
    return EncodedMasks.cat([encode_masks(ids[None] == segment["id"]) for segment in segments], size)


def has_mask(annotation: dict) -> bool:
    shape = annotation.get("segmentation")
    return shape is not None and len(shape) > 0  # an empty list stands for no polygon


def _xywh(annotation: dict) -> list[float]:
    x, y, right, bottom = box = annotation["bbox"]
    return [x, y, right - x, bottom - y] if annotation.get("bbox_mode") == _XYXY_ABS else box


def check_rle_size(shape: Any, size: tuple[int, int], what: str) -> None:
    """Raise UserError for an RLE of another size; polygons have none."""
    if isinstance(shape, dict) and tuple(shape["size"]) != size:
        raise _wrong_size(what, shape["size"], size)


def _wrong_size(what: str, found: Sequence[int], size: tuple[int, int]) -> UserError:
    return UserError(
        f"{what} is {found[1]}x{found[0]} pixels, but the prediction is {size[1]}x{size[0]} (width x height). Masks "
        "must have the size of their image: correct the annotation, or height and width in the record."
    )
