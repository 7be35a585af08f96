"""Binary masks: boxes around them, COCO run-length encoding, and a thin tensor wrapper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

# N masks, H W image size


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Tight boxes [N,4] (x0, y0, x1, y1) in pixels, float32, of boolean masks [N,H,W].

    The far edges are exclusive: a single pixel at (0, 0) has the box (0, 0, 1, 1). An empty mask has the box 0.
    """
    n, h, w = masks.shape
    if masks.numel() == 0:
        return torch.zeros(n, 4, device=masks.device)
    boxes = []
    for size, occupied in ((w, masks.any(1)), (h, masks.any(2))):
        position = torch.arange(size, device=masks.device)
        first = torch.where(occupied, position, size).amin(1)
        last = torch.where(occupied, position + 1, 0).amax(1)
        boxes.append(torch.stack([torch.minimum(first, last), last], 1))
    (x0, x1), (y0, y1) = boxes[0].unbind(1), boxes[1].unbind(1)
    return torch.stack([x0, y0, x1, y1], 1).float()


def rle_encode(mask: Tensor | np.ndarray) -> dict:
    """COCO RLE ``{"size": [H, W], "counts": str}`` of one mask [H,W] (non-zero is inside)."""
    array = mask.detach().cpu().numpy() if torch.is_tensor(mask) else np.asarray(mask)
    rle = coco_mask.encode(np.asfortranarray(array.astype(np.uint8)))
    return {"size": [int(s) for s in rle["size"]], "counts": rle["counts"].decode("ascii")}


def rle_decode(rle: dict) -> np.ndarray:
    """Boolean mask [H,W] of a COCO RLE, compressed (str or bytes counts) or uncompressed (list of run lengths)."""
    return coco_mask.decode(coco_rle(rle, rle["size"])).astype(bool)


def coco_rle(segmentation: list | dict | np.ndarray, size: tuple[int, int]) -> dict:
    """A segmentation in any of COCO's forms as a compressed RLE, for pycocotools.

    Args:
        segmentation: polygons [[x0, y0, x1, y1, ...], ...], an RLE, compressed or not, or a mask [H,W].
        size: (H, W) of the image, on which polygons are drawn.
    """
    if isinstance(segmentation, np.ndarray):
        return rle_encode(segmentation)
    if isinstance(segmentation, dict) and not isinstance(segmentation["counts"], list):
        return segmentation
    rle = coco_mask.frPyObjects(segmentation, *size)
    return coco_mask.merge(rle) if isinstance(rle, list) else rle


def rle_runs(counts: list[int] | str | bytes) -> np.ndarray:
    """Run lengths int64 [R] of a COCO RLE, of pixels outside and inside in turn; empty where `counts` is no such text.

    For checks: pycocotools leaves pixels unset where a compressed RLE ends too early. Its characters carry five bits
    each, the lowest first, offset by 48, with 32 added while a number goes on and 16 in the last one for a negative
    number; from the fourth on a number is the difference to the run before the last.
    """
    if isinstance(counts, list):
        return np.asarray(counts, np.int64)
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    values = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (values & 32) == 0
    if not len(values) or not last[-1] or values.min() < 0 or values.max() > 63:
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    runs = np.add.reduceat((values & 31) << (5 * place), starts)
    negative = (values[last] & 16) > 0
    runs[negative] -= 1 << (5 * (place[last][negative] + 1))
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def rle_areas(rles: Sequence[dict]) -> np.ndarray:
    """Pixels of each compressed RLE, int64 [N]."""
    # one by one: pycocotools 2.0 counts the masks of a list in 8 bits and fails beyond 255
    return np.array([coco_mask.area(rle) for rle in rles], dtype=np.int64)


class BitMasks:
    """Boolean masks [N,H,W] of one image, as an Instances field that also knows its boxes."""

    def __init__(self, tensor: Tensor | np.ndarray):
        self.tensor = torch.as_tensor(tensor).to(torch.bool)
        if self.tensor.dim() != 3:
            raise ValueError(f"BitMasks needs [N,H,W], got shape {tuple(self.tensor.shape)}")

    @property
    def image_size(self) -> tuple[int, int]:
        return tuple(self.tensor.shape[1:])

    def to(self, *args, **kwargs) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        return BitMasks(self.tensor[slice(item, item + 1 or None) if isinstance(item, int) else item])

    def __iter__(self):
        """The masks [H,W], one after the other."""
        return iter(self.tensor)

    def __len__(self) -> int:
        return len(self.tensor)

    def nonempty(self) -> Tensor:
        """Boolean [N]: masks with at least one pixel."""
        return self.tensor.flatten(1).any(1)

    def get_bounding_boxes(self) -> Tensor:
        """See :func:`masks_to_boxes`."""
        return masks_to_boxes(self.tensor)

    @staticmethod
    def cat(parts: list[BitMasks]) -> BitMasks:
        return BitMasks(torch.cat([p.tensor for p in parts]))
