"""Annotation -> labels and masks of the objects to predict: the one place where targets are made.

What an image's record says is read here, too, in the form that transforms move: a map of ids, or polygons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors

from mask2former.data.datasets.checks import check_mask, check_mask_size
from mask2former.data.datasets.objects import check_segmentation
from mask2former.data.reading import read_mask, read_panoptic
from mask2former.structures import CompactMasks, Instances, Polygons, coco_rle
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

# H, W: size of the file; h, w: size after the transform; N: objects of the image; L: layers


class SemanticAnnotation:
    """A map of class ids; one target for each class that is present.

    Args:
        num_classes: ids in the mask file are below it, or `ignore_label`.
        ignore_label: id of pixels without label.
    """

    source = "sem_seg_file_name"  # the key that a record must have

    def __init__(self, num_classes: int, ignore_label: int):
        self.num_classes, self.ignore_label = num_classes, ignore_label

    def read(self, record: dict, size: tuple[int, int]) -> tuple[tv_tensors.Mask, None]:
        """Mask int32 [H,W] for an image of `size` (H, W), and nothing that stays behind."""
        mask = read_mask(record[self.source])
        check_mask(mask, size, self.num_classes, self.ignore_label, record[self.source])
        return tv_tensors.Mask(torch.from_numpy(mask)), None

    def targets(self, moved: tv_tensors.Mask, _: None) -> dict[str, Any]:
        """ "sem_seg" int32 [h,w] and "instances"."""
        sem_seg = moved.as_subclass(Tensor).contiguous()
        return {"sem_seg": sem_seg, "instances": semantic_instances(sem_seg, self.ignore_label)}


class PanopticAnnotation:
    """A map of segment ids with a list of segments; one target for each segment that is no crowd."""

    source = "pan_seg_file_name"

    def read(self, record: dict, size: tuple[int, int]) -> tuple[tv_tensors.Mask, Tensor]:
        """Mask [H,W] with k + 1 where target k is and 0 where none is, and the targets' classes int64 [N]."""
        path = record[self.source]
        ids = read_panoptic(path)
        check_mask_size(ids.shape, size, path)
        crowd = [segment["id"] for segment in record["segments_info"] if segment.get("iscrowd")]
        segments = [segment for segment in record["segments_info"] if not segment.get("iscrowd")]
        numbered = number_segments(ids, [segment["id"] for segment in segments], crowd, path)
        classes = torch.tensor([segment["category_id"] for segment in segments], dtype=torch.int64)
        return tv_tensors.Mask(torch.from_numpy(numbered)), classes

    def targets(self, moved: tv_tensors.Mask, classes: Tensor) -> dict[str, Any]:
        """ "instances"; segments that the transform cut away are left out."""
        return {"instances": numbered_instances(moved.as_subclass(Tensor), classes)}


class InstanceAnnotation:
    """A list of objects, each with polygons, a COCO RLE or a bitmask; one target for each that is no crowd."""

    source = "annotations"

    def read(self, record: dict, size: tuple[int, int]) -> tuple[Polygons | tv_tensors.Mask, Tensor]:
        """Polygons where every object has them, else a Mask [L,H,W] of layers (see `layered`); classes int64 [N]."""
        objects = [annotation for annotation in record[self.source] if not annotation.get("iscrowd")]
        classes = torch.tensor([annotation["category_id"] for annotation in objects], dtype=torch.int64)
        if all(isinstance(annotation["segmentation"], list) for annotation in objects):
            return Polygons.from_coco([annotation["segmentation"] for annotation in objects], size), classes
        return tv_tensors.Mask(torch.from_numpy(object_layers(objects, size, record["file_name"]))), classes

    def targets(self, moved: Polygons | tv_tensors.Mask, classes: Tensor) -> dict[str, Any]:
        """ "instances"; objects that the transform cut away are left out."""
        if isinstance(moved, Polygons):
            masks, visible = moved.draw_visible()
            return {"instances": Instances(moved.canvas_size, gt_classes=classes[visible], gt_masks=masks)}
        return {"instances": numbered_instances(moved.as_subclass(Tensor), classes)}


# ---------------------------------------------------------------- maps of numbers -> masks


def semantic_instances(sem_seg: Tensor, ignore_label: int) -> Instances:
    """One mask for each class that is present; pixels of `ignore_label` belong to none.

    Args:
        sem_seg: integer [H,W], class ids from 0.
        ignore_label: id of pixels without label.

    Returns:
        Instances with gt_classes int64 [N] in ascending order and gt_masks, CompactMasks; N may be 0.
    """
    present = torch.bincount(sem_seg.reshape(-1)) > 0  # a histogram; torch.unique would sort all pixels
    if 0 <= ignore_label < len(present):
        present[ignore_label] = False
    classes = present.nonzero().flatten()
    masks = CompactMasks.from_numbers(sem_seg, classes)
    return Instances(tuple(sem_seg.shape), gt_classes=classes, gt_masks=masks)


def numbered_instances(numbers: Tensor, classes: Tensor) -> Instances:
    """The objects of a map in which pixels of object k have the number k + 1, and those of no object 0.

    Args:
        numbers: integer [h,w], or layers [L,h,w] of which each object is in one.
        classes: int64 [N].

    Returns:
        Instances with gt_classes int64 [n] and gt_masks, CompactMasks, of the objects that cover a pixel.
    """
    (instances,) = clip_instances(numbers.reshape(1, -1, *numbers.shape[-2:]), classes)
    return instances


def clip_instances(numbers: Tensor, classes: Tensor, ids: Tensor | None = None) -> list[Instances]:
    """The objects of a clip, as `numbered_instances` for each frame: the same objects in the same order in all.

    Args:
        numbers: integer [T,L,h,w].
        classes: int64 [N].
        ids: int64 [N], of the tracks; None: targets have no gt_ids.

    Returns:
        T Instances with gt_classes int64 [n], gt_masks (CompactMasks) and gt_ids int64 [n] of the objects that cover a
        pixel of some frame; the id is -1 in frames where the mask is empty.
    """
    counts = torch.stack(
        [torch.bincount(layer.reshape(-1), minlength=len(classes) + 1) for frame in numbers for layer in frame]
    ).view(*numbers.shape[:2], -1)  # [T,L,N+1], pixels
    kept = (counts.amax((0, 1))[1 : len(classes) + 1] > 0).nonzero().flatten()
    values = kept + 1
    frames = []
    for frame, count in zip(numbers, counts[:, :, values]):
        masks = CompactMasks.from_numbers(frame, values, count.argmax(0))
        instances = Instances(tuple(frame.shape[1:]), gt_classes=classes[kept], gt_masks=masks)
        if ids is not None:
            instances.gt_ids = torch.where(count.amax(0) > 0, ids[kept], -1)
        frames.append(instances)
    return frames


def number_segments(ids: np.ndarray, segments: Sequence[int], crowd: Sequence[int], path: str) -> np.ndarray:
    """Segment ids -> k + 1 for the k-th of `segments`, 0 for void and crowd; uint8 [H,W], wider if need be.

    Args:
        ids: int32 [H,W], below 2**24, 0 for void.
        segments, crowd: the ids that are listed.
        path: file of the ids, for the message.

    Raises:
        UserError: `ids` has an id that is not listed.
    """
    unlisted = len(segments) + 1
    table = np.zeros(1 << 24, _number_type(unlisted))  # by id; pages that no id is on take no memory
    table[list(segments)] = np.arange(1, unlisted)
    numbered = table.take(ids)
    known = np.count_nonzero(numbered) + np.count_nonzero(ids == 0)
    known += sum(np.count_nonzero(ids == crowd_id) for crowd_id in {*crowd} - {0})
    if known != ids.size:
        found = np.setdiff1d(ids, [0, *segments, *crowd])
        raise UserError(
            f"Panoptic map {path} has the segment ids {some(found)}, which its segments_info does not list. Add the "
            "segments to the JSON file, or paint them 0 (void)."
        )
    return numbered


def _number_type(largest: int) -> type:
    return next(t for t in (np.uint8, np.int16, np.int32) if largest <= np.iinfo(t).max)


# ---------------------------------------------------------------- RLE and bitmasks -> layers


_LAYERS_TRIED = 8  # newest layers that an object is tried on; all of them would take a time quadratic in the objects


def object_layers(
    objects: Sequence[dict], size: tuple[int, int], file_name: str, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """`layered` for annotations, in any of COCO's forms, of the image `file_name` of (H, W) `size`.

    Raises:
        UserError: a mask that is broken or has another size.
    """
    for annotation in objects:
        check_segmentation(annotation, size, file_name)
    return layered([coco_rle(annotation["segmentation"], size) for annotation in objects], size, numbers)


def layered(rles: Sequence[dict], size: tuple[int, int], numbers: Sequence[int] | None = None) -> np.ndarray:
    """Objects as few maps of numbers instead of one mask each: those that do not overlap share a layer.

    Args:
        rles: compressed COCO RLEs of (H, W) `size`.
        numbers: of the objects, above 0; None: 1, 2 ... in their order.

    Returns:
        [L,H,W], L at least 1, uint8 or wider: an object's number where it is, 0 elsewhere; each is on one layer alone.
    """
    numbers = range(1, len(rles) + 1) if numbers is None else numbers
    layers = [np.zeros(size, _number_type(max(numbers, default=0)))]
    for number, rle in zip(numbers, rles, strict=True):
        left, top, width, height = (int(value) for value in coco_mask.toBbox(rle))
        window = slice(top, top + height), slice(left, left + width)
        inside = coco_mask.decode(rle)[window].astype(bool)
        free = (layer for layer in layers[-_LAYERS_TRIED:] if not (layer[window] * inside).any())
        layer = next(free, None)
        if layer is None:
            layers.append(layer := np.zeros_like(layers[0]))
        layer[window][inside] = number
    return np.stack(layers)
