"""Annotations of objects as every reader gives them, whatever form they come in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask2former.data.datasets.coco_checks import crowd_flag, measures_problem, rle_size, segmentation_problem
from mask2former.utils.errors import UserError

XYXY_ABS, XYWH_ABS = 0, 1  # detectron2's BoxMode: two corners, or corner and size, in pixels
_LARGE_CANVAS = (1 << 14, 1 << 14)  # for polygons of images whose size is not known yet
_COMPLETE = {"id", "bbox", "bbox_mode", "category_id", "iscrowd", "area", "segmentation"}


def completed(annotation: Mapping, size: tuple[int, int], file_name: str) -> dict | None:
    """An annotation as detectron2's readers or a user's function make it -> one as `load_coco_json` does.

    Args:
        annotation: "category_id" and "segmentation" (polygons, which may be tuples or arrays, an RLE, or a mask [H,W]);
            and what is known of "bbox", "bbox_mode" (a number or detectron2's BoxMode), "iscrowd", "area" and "id".
        size: (H, W) of the image.
        file_name: of the image, for messages.

    Returns:
        the annotation without "id" where it had none; None where it has no segmentation.

    Raises:
        UserError: a broken mask, or boxes of another mode than XYXY_ABS and XYWH_ABS.
    """
    segmentation = annotation.get("segmentation")
    if segmentation is None or len(segmentation) == 0:
        return None
    if isinstance(segmentation, (list, tuple)) and not isinstance(segmentation[0], list):
        annotation = {**annotation, "segmentation": [_as_list(polygon) for polygon in segmentation]}
    ours = annotation.get("bbox_mode") is XYWH_ABS and _COMPLETE <= annotation.keys()  # by one of our own readers
    if ours and isinstance(segmentation, Mapping) and rle_size(segmentation) == tuple(size):
        return annotation  # its counts were looked at when they were read: 40 microseconds for each of 270,000 objects
    check_segmentation(annotation, size, file_name)
    if ours:
        return annotation
    bbox, mode = annotation.get("bbox"), int(annotation.get("bbox_mode", XYWH_ABS))
    if mode not in (XYXY_ABS, XYWH_ABS):
        raise UserError(
            f"An annotation of image {file_name} has the bbox_mode {annotation['bbox_mode']!r}; expected XYXY_ABS (0) "
            "or XYWH_ABS (1), boxes in pixels. Convert the boxes."
        )
    crowd, problem = crowd_flag(annotation), ""
    if bbox is not None:
        bbox = np.asarray(bbox).tolist()
        problem = measures_problem({"bbox": bbox, "area": annotation.get("area")})
    if crowd is None or problem:
        problem = problem or f"the iscrowd is {annotation['iscrowd']!r}; expected 0 or 1"
        raise UserError(f"An annotation of image {file_name}: {problem}. Correct it in the function that makes it.")
    if bbox:
        bbox = [float(value) for value in bbox]
        if mode == XYXY_ABS:
            bbox = [*bbox[:2], bbox[2] - bbox[0], bbox[3] - bbox[1]]
    fields = {"iscrowd": crowd, "bbox": bbox, "bbox_mode": XYWH_ABS}
    return measured({**annotation, **fields}, size)


def _as_list(polygon: Any) -> Any:
    return np.asarray(polygon).reshape(-1).tolist() if isinstance(polygon, (tuple, np.ndarray)) else polygon


def check_segmentation(annotation: Mapping, size: tuple[int, int], file_name: str) -> None:
    """Raise UserError unless the mask of an annotation, in any form, fits an image of `size` (H, W)."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, np.ndarray):
        wrong = segmentation.shape != tuple(size)
        problem = f"the mask has the shape {segmentation.shape}, its image {tuple(size)}" if wrong else ""
    else:
        problem = segmentation_problem(segmentation, size)
    if problem:
        which = f"Annotation {annotation['id']!r}" if "id" in annotation else "An annotation"
        raise UserError(f"{which} of image {file_name}: {problem}. Correct the annotation, or take it out.")


def measured(annotation: dict, size: tuple[int, int] | None) -> dict:
    """The annotation with the "bbox" and "area" of its segmentation where they are missing."""
    bbox, area = annotation.get("bbox"), annotation.get("area")
    if not bbox or area is None:
        rle = _as_rle(annotation["segmentation"], size or _LARGE_CANVAS)
        bbox = bbox or coco_mask.toBbox(rle).tolist()
        area = float(coco_mask.area(rle)) if area is None else area
    return {**annotation, "bbox": bbox, "area": area}


def _as_rle(segmentation: Any, size: tuple[int, int]) -> dict:
    if isinstance(segmentation, np.ndarray):
        return coco_mask.encode(np.asfortranarray(segmentation, dtype=np.uint8))
    if isinstance(segmentation, Mapping) and not isinstance(segmentation["counts"], list):
        return dict(segmentation)
    rle = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.merge(rle) if isinstance(rle, list) else rle
