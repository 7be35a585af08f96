"""detectron2's `data.detection_utils`: what mappers written by users call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask2former.compat.structures import Boxes, BoxMode, PolygonMasks, polygons_to_bitmask
from mask2former.data import reading
from mask2former.data.dataset_mappers.augmentations import Transform, TransformList
from mask2former.structures import BitMasks, Instances, rle_decode
from mask2former.utils.errors import UserError

__all__ = [
    "annotations_to_instances",
    "check_image_size",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]


def read_image(file_name: str | Path, format: str | None = None) -> np.ndarray:
    """uint8 [H,W,3] in the order of `format`, "RGB" or "BGR"; "L": a map of ids [H,W,1]; None: such a map, or RGB.

    Raises:
        UserError: see `mask2former.data.read_image`.
    """
    if format == "L":
        return reading.read_mask(file_name)[:, :, None]
    if format is not None:
        return reading.read_image(file_name, format)
    try:
        return reading.read_mask(file_name)
    except UserError:  # no map of ids, or nothing that can be read, which the other reader tells
        return reading.read_image(file_name)


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Compare an image [H,W,...] with the size that its record states; fill in what it does not.

    Raises:
        UserError: they differ.
    """
    for axis, key in enumerate(("height", "width")):
        if dataset_dict.setdefault(key, image.shape[axis]) != image.shape[axis]:
            raise UserError(
                f"Image {dataset_dict.get('file_name')} has {key} {image.shape[axis]}, but its record says "
                f"{dataset_dict[key]}. Correct the record."
            )


def transform_instance_annotations(
    annotation: dict, transforms: Transform | Sequence[Transform], image_size: tuple[int, int], **_: Any
) -> dict:
    """Move an object's box and mask, in place.

    Args:
        annotation: with "bbox" and "bbox_mode"; afterwards XYXY_ABS, cut to the image. "segmentation", if there is one,
            is polygons, which stay polygons, or COCO RLE, which becomes a bool [h,w].
        transforms: what was done to the image.
        image_size: (h, w) of the image after it.
    """
    drawn = TransformList(transforms) if isinstance(transforms, (list, tuple)) else transforms
    if "bbox" in annotation:
        box = np.asarray(BoxMode.convert([*annotation["bbox"]], annotation["bbox_mode"], BoxMode.XYXY_ABS), float)
        height, width = image_size
        annotation["bbox"] = np.clip(drawn.apply_box(box[None])[0], 0, [width, height, width, height])
        annotation["bbox_mode"] = BoxMode.XYXY_ABS
    shape = annotation.get("segmentation")
    if isinstance(shape, (list, tuple)):
        rings = drawn.apply_polygons([np.asarray(ring, float).reshape(-1, 2) for ring in shape])
        annotation["segmentation"] = [ring.reshape(-1) for ring in rings]
    elif shape is not None:
        mask = rle_decode(shape) if isinstance(shape, dict) else np.asarray(shape)
        annotation["segmentation"] = drawn.apply_segmentation(mask.astype(np.uint8)).astype(bool)
    return annotation


def annotations_to_instances(
    annos: Sequence[dict], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Instances with gt_boxes, gt_classes and, where objects have masks, gt_masks.

    Args:
        annos: from `transform_instance_annotations`.
        image_size: (h, w).
        mask_format: "polygon" (gt_masks is PolygonMasks) or "bitmask" (BitMasks).
    """
    boxes = [BoxMode.convert([*a["bbox"]], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    classes = torch.tensor([a["category_id"] for a in annos], dtype=torch.int64)
    instances = Instances(image_size, gt_boxes=Boxes(boxes), gt_classes=classes)
    if annos and "segmentation" in annos[0]:
        shapes = [a["segmentation"] for a in annos]
        if mask_format == "polygon":
            instances.gt_masks = PolygonMasks(shapes)
        else:
            instances.gt_masks = BitMasks(np.stack([_bitmask(shape, image_size) for shape in shapes]))
    return instances


def _bitmask(shape: Any, size: tuple[int, int]) -> np.ndarray:
    if isinstance(shape, dict):
        return rle_decode(shape)
    return polygons_to_bitmask(shape, *size) if isinstance(shape, (list, tuple)) else np.asarray(shape, bool)


def filter_empty_instances(instances: Instances, by_box: bool = True, by_mask: bool = True) -> Instances:
    """The instances whose box has an area, and whose mask has something in it."""
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep &= Boxes(getattr(instances.gt_boxes, "tensor", instances.gt_boxes)).nonempty()
    if by_mask and instances.has("gt_masks"):
        keep &= instances.gt_masks.nonempty()
    return instances[keep]
