"""detectron2's boxes and polygons, as thin as user modules need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mask2former.structures import Polygons

# N objects, H W canvas size in pixels


@unique
class BoxMode(IntEnum):
    """What the numbers of a box are; ABS in pixels, REL as shares of the image."""

    XYXY_ABS = 0  # x0, y0, x1, y1
    XYWH_ABS = 1  # x0, y0, width, height
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4  # centre, width, height, angle

    @staticmethod
    def convert(box: Any, from_mode: BoxMode, to_mode: BoxMode) -> Any:
        """One box (a list or tuple) or boxes [N,4] (an array or tensor) in another mode, in a container like the given.

        Raises:
            NotImplementedError: the modes are others than XYXY_ABS and XYWH_ABS.
        """
        if from_mode == to_mode:
            return box
        if {from_mode, to_mode} != {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
            raise NotImplementedError(
                f"Boxes are converted between XYXY_ABS and XYWH_ABS, not {from_mode!r}, {to_mode!r}"
            )
        plain = isinstance(box, (list, tuple))
        boxes = torch.as_tensor(box).clone() if not isinstance(box, np.ndarray) else box.copy()
        sign = 1 if to_mode == BoxMode.XYXY_ABS else -1
        boxes[..., 2:] += sign * boxes[..., :2]
        return type(box)(boxes.tolist()) if plain else boxes


class Boxes:
    """Boxes float32 [N,4] (x0, y0, x1, y1) in pixels, as `tensor`."""

    def __init__(self, tensor: Any):
        self.tensor = torch.as_tensor(tensor, dtype=torch.float32).reshape(-1, 4)

    def area(self) -> Tensor:
        """Pixels [N]."""
        return (self.tensor[:, 2] - self.tensor[:, 0]) * (self.tensor[:, 3] - self.tensor[:, 1])

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut all boxes to an image of (H, W), in place."""
        height, width = box_size
        limits = self.tensor.new_tensor([width, height, width, height])
        self.tensor = self.tensor.clamp(min=0).minimum(limits)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """Boolean [N]: boxes with both sides above `threshold`."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(1)

    def to(self, *args: Any, **kwargs: Any) -> Boxes:
        return Boxes(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def cat(parts: Sequence[Boxes]) -> Boxes:
        return Boxes(torch.cat([part.tensor for part in parts]))

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        return Boxes(self.tensor[item])

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor)

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


class PolygonMasks:
    """For each of N objects a list of rings, each x0, y0, x1, y1, ... in pixels."""

    def __init__(self, polygons: Sequence[Sequence[Any]]):
        self.polygons = [[np.asarray(ring, float).reshape(-1) for ring in rings] for rings in polygons]

    def get_bounding_boxes(self) -> Boxes:
        """The boxes around all rings of each object; 0 for an object without."""
        boxes = np.zeros((len(self), 4))
        for box, rings in zip(boxes, self.polygons):
            if rings:
                points = np.concatenate(rings).reshape(-1, 2)
                box[:] = [*points.min(0), *points.max(0)]
        return Boxes(boxes)

    def area(self) -> Tensor:
        """Pixels [N] inside the rings, by their coordinates."""
        return torch.tensor([sum(map(_ring_area, rings)) for rings in self.polygons], dtype=torch.float32)

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """Itself: coordinates stay in the CPU's memory."""
        return self

    def nonempty(self) -> Tensor:
        """Boolean [N]: objects with at least one ring."""
        return torch.tensor([len(rings) > 0 for rings in self.polygons], dtype=torch.bool)

    def __getitem__(self, item: int | slice | Tensor) -> PolygonMasks:
        chosen = np.arange(len(self))[item.numpy() if torch.is_tensor(item) else item]
        return PolygonMasks([self.polygons[i] for i in np.atleast_1d(chosen)])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring[0::2], ring[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))


def polygons_to_bitmask(polygons: Sequence[Any], height: int, width: int) -> np.ndarray:
    """The union of one object's rings, bool [H,W], pixel for pixel pycocotools'."""
    return Polygons.from_coco([[np.asarray(ring).reshape(-1) for ring in polygons]], (height, width)).draw()[0].numpy()
