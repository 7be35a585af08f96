"""Boolean masks -> COCO's run lengths, each mask inside the box around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

# N masks, H W image size


@dataclass(frozen=True)
class EncodedMasks:
    """The masks of one image.

    size    (H, W)
    counts  N compressed run lengths, the `counts` of COCO's RLE
    boxes   float64 [N,4], (x, y, width, height) in pixels around each mask; 0 for an empty one
    areas   int64 [N], pixels
    """

    size: tuple[int, int]
    counts: list[bytes]
    boxes: np.ndarray
    areas: np.ndarray

    @staticmethod
    def cat(parts: Sequence[EncodedMasks], size: tuple[int, int]) -> EncodedMasks:
        """All masks of `parts`, which are of this size; of no part, no masks."""
        return EncodedMasks(
            size=size,
            counts=[counts for part in parts for counts in part.counts],
            boxes=np.concatenate([np.zeros((0, 4)), *(part.boxes for part in parts)]),
            areas=np.concatenate([np.zeros(0, np.int64), *(part.areas for part in parts)]),
        )

    @classmethod
    def from_rles(cls, rles: Sequence[dict], size: tuple[int, int]) -> EncodedMasks:
        """From COCO's compressed RLEs of this size."""
        if not rles:
            return cls.cat([], size)
        counts = [rle["counts"] if isinstance(rle["counts"], bytes) else rle["counts"].encode() for rle in rles]
        # one by one: given more than 255 RLEs, `area` of pycocotools 2.0.11 raises OverflowError under NumPy 2
        areas = np.array([coco_mask.area(rle) for rle in rles], dtype=np.int64)
        return cls(size, counts, coco_mask.toBbox(list(rles)), areas)


def encode_masks(masks: Any) -> EncodedMasks:
    """Encode all masks of an image; the result is byte for byte that of `pycocotools.mask.encode`.

    pycocotools walks over every pixel of a copy of each mask. Here rows and columns are searched for the masks' boxes,
    and only pixels inside these are turned to COCO's order, column after column, and compared with their neighbours.

    Args:
        masks: [N,H,W], a tensor on any device, an array, or what holds one as `tensor` (BitMasks); non-zero is inside.
    """
    dense = _dense(masks)
    size = (int(dense.shape[1]), int(dense.shape[2]))
    (top, bottom), (left, right) = _extent(dense.any(2)), _extent(dense.any(1))
    corners = np.stack([left, top, right, bottom], 1)
    runs = [_run_lengths(mask, *corner) for mask, corner in zip(dense, corners.tolist())]
    rles = coco_mask.frPyObjects([{"size": size, "counts": counts} for counts in runs], *size) if runs else []
    return EncodedMasks(
        size=size,
        counts=[rle["counts"] for rle in rles],
        boxes=np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).astype(np.float64),
        areas=np.array([counts[1::2].sum() for counts in runs], dtype=np.int64),
    )


def _dense(masks: Any) -> np.ndarray:
    """Boolean [N,H,W] in the memory of this machine."""
    masks = torch.as_tensor(getattr(masks, "tensor", masks)).detach()
    if masks.dim() != 3:
        raise ValueError(f"masks must be [N,H,W], got shape {tuple(masks.shape)}")
    return (masks if masks.dtype == torch.bool else masks != 0).cpu().numpy()


def _extent(occupied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First True and the place after the last one in each row of boolean [N,S]; 0 and 0 where there is none."""
    length = occupied.shape[1]
    found = occupied.any(1)
    first = np.where(found, occupied.argmax(1), 0)
    return first, np.where(found, length - occupied[:, ::-1].argmax(1), 0)


def _run_lengths(mask: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Lengths of the runs outside, inside, outside ... of mask [H,W], columns joined, as COCO counts them."""
    height, width = mask.shape
    rows, columns = bottom - top, right - left
    # between two columns of the box lie pixels outside the mask, for which one stands here; not in a box of full height
    stride = rows + (rows < height)
    line = np.zeros(columns * stride + 2, bool)  # begins and ends outside
    line[1:-1].reshape(columns, stride)[:, :rows] = mask[top:bottom, left:right].T
    column, row = np.divmod(np.flatnonzero(line[1:] != line[:-1]), max(stride, 1))
    changes = (left + column) * height + top + row
    lengths = np.diff(np.concatenate([[0], changes, [height * width]]))
    return lengths if lengths[-1] else lengths[:-1]  # COCO writes no empty run at the end
