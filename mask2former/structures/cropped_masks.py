"""Boolean masks kept inside their bounding boxes: what many small objects in a large image cost, and no more."""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.structures.masks import masks_to_boxes

# N masks, H W image size, S pixels of all boxes


class CroppedMasks:
    """Masks of one image, as an Instances field. A mask is False outside its box.

    pixels      bool [S], the boxes' contents row by row, one after the other
    boxes       int64 [N,4], (x0, y0, x1, y1) in pixels, far edges exclusive; they lie inside the image
    image_size  (height, width)
    """

    def __init__(self, pixels: Tensor, boxes: Tensor, image_size: tuple[int, int]):
        self.pixels, self.boxes = pixels, boxes
        self.image_size = (int(image_size[0]), int(image_size[1]))

    @classmethod
    def from_crops(cls, crops: list[Tensor], corners: list[tuple[int, int]], image_size: tuple[int, int]):
        """From boolean crops [h,w] and the (x0, y0) of their first pixels."""
        pixels = torch.cat([c.reshape(-1) for c in crops]) if crops else torch.zeros(0, dtype=torch.bool)
        boxes = [(x, y, x + c.shape[1], y + c.shape[0]) for c, (x, y) in zip(crops, corners, strict=True)]
        return cls(pixels, torch.tensor(boxes, dtype=torch.int64).view(-1, 4), image_size)

    @classmethod
    def from_dense(cls, masks: Tensor) -> CroppedMasks:
        """From boolean masks [N,H,W]; an empty one gets an empty box."""
        boxes = masks_to_boxes(masks).long().tolist()
        crops = [mask[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(masks, boxes)]
        return cls.from_crops(crops, [(box[0], box[1]) for box in boxes], masks.shape[1:])

    @property
    def tensor(self) -> Tensor:
        """The masks at full size, bool [N,H,W]; made anew each time."""
        dense = self.pixels.new_zeros(len(self), *self.image_size)
        for mask, crop, (x0, y0, x1, y1) in zip(dense, self._crops(), self.boxes.tolist()):
            mask[y0:y1, x0:x1] = crop
        return dense

    @property
    def places(self) -> Tensor:
        """int64 [N,5]: where in `pixels` a mask starts, its box's x0 and y0, width and height."""
        corner, size = self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]
        area = size.prod(1)
        return torch.cat([(area.cumsum(0) - area)[:, None], corner, size], 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)"""
        return len(self), *self.image_size

    def areas(self) -> Tensor:
        """Pixels of each mask, int64 [N]."""
        rows = torch.arange(len(self), device=self.pixels.device).repeat_interleave(self.places[:, 3:].prod(1))
        return torch.bincount(rows[self.pixels], minlength=len(self))

    def to(self, *args, **kwargs) -> CroppedMasks:
        """Moved to a device; the types stay."""
        return CroppedMasks(self.pixels.to(*args, **kwargs), self.boxes.to(*args, **kwargs), self.image_size)

    def pin_memory(self) -> CroppedMasks:
        return CroppedMasks(self.pixels.pin_memory(), self.boxes.pin_memory(), self.image_size)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, item: int | slice | Tensor) -> CroppedMasks:
        index = slice(item, item + 1 or None) if isinstance(item, int) else item
        rows = torch.arange(len(self), device=self.boxes.device)[index].tolist()
        crops, corners = self._crops(), self.boxes[:, :2].tolist()
        return CroppedMasks.from_crops([crops[i] for i in rows], [tuple(corners[i]) for i in rows], self.image_size)

    def _crops(self) -> list[Tensor]:
        sizes = self.places[:, 3:].tolist()
        parts = self.pixels.split([w * h for w, h in sizes]) if sizes else ()
        return [part.view(h, w) for part, (w, h) in zip(parts, sizes)]

    @staticmethod
    def cat(parts: list[CroppedMasks]) -> CroppedMasks:
        pixels, boxes = torch.cat([p.pixels for p in parts]), torch.cat([p.boxes for p in parts])
        return CroppedMasks(pixels, boxes, parts[0].image_size)
