"""Polygon annotations of one image, moved as coordinates by torchvision's transforms and drawn at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

# V vertices of all rings, N objects, H W canvas size in pixels; x, y in pixels, (0, 0) is the upper left corner of the
# upper left pixel


class Polygons(tv_tensors.TVTensor):
    """The outlines of N objects as one tensor [V,2] of (x, y); an object is the union of its rings.

    Coordinates may lie outside the canvas; what does is cut off when the objects are drawn. `torchvision.transforms.v2`
    resizes, crops, pads and flips polygons together with the image; transforms that have no kernel for them raise.

    Args:
        vertices: [V,2] (x, y), kept in float64 unless it is a float tensor already; the rings one after the other.
        ring_lengths: vertices of each ring; they sum to V.
        ring_objects: the object, 0 to N - 1, that each ring belongs to.
        num_objects: N; an object without rings is empty.
        canvas_size: (H, W).
    """

    ring_lengths: tuple[int, ...]
    ring_objects: tuple[int, ...]
    num_objects: int
    canvas_size: tuple[int, int]

    def __new__(
        cls,
        vertices: Any,
        ring_lengths: Sequence[int],
        ring_objects: Sequence[int],
        num_objects: int,
        canvas_size: tuple[int, int],
    ) -> Polygons:
        floats = torch.is_tensor(vertices) and vertices.is_floating_point()
        tensor = cls._to_tensor(vertices, dtype=None if floats else torch.float64).reshape(-1, 2)
        if len(ring_lengths) != len(ring_objects) or sum(ring_lengths) != len(tensor):
            raise ValueError(
                f"Polygons got {len(ring_lengths)} ring lengths with the sum {sum(ring_lengths)} and "
                f"{len(ring_objects)} ring objects for {len(tensor)} vertices."
            )
        polygons = tensor.as_subclass(cls)
        polygons.ring_lengths, polygons.ring_objects = tuple(ring_lengths), tuple(ring_objects)
        polygons.num_objects, polygons.canvas_size = num_objects, (int(canvas_size[0]), int(canvas_size[1]))
        return polygons

    @classmethod
    def from_coco(cls, segmentations: Sequence[Sequence[Sequence[float]]], canvas_size: tuple[int, int]) -> Polygons:
        """From COCO's form: for each object a list of rings, each a flat list x0, y0, x1, y1, ..."""
        rings = [np.asarray(ring, np.float64) for rings in segmentations for ring in rings]
        objects = [index for index, rings in enumerate(segmentations) for _ in rings]
        vertices = np.concatenate(rings) if rings else np.zeros(0)
        return cls(vertices, [len(ring) // 2 for ring in rings], objects, len(segmentations), canvas_size)

    def moved(self, vertices: Tensor, canvas_size: tuple[int, int]) -> Polygons:
        """The same rings with other coordinates [V,2] on another canvas."""
        return Polygons(vertices, self.ring_lengths, self.ring_objects, self.num_objects, canvas_size)

    def rings(self) -> list[list[np.ndarray]]:
        """For each object its rings, float64 [v,2]."""
        objects: list[list[np.ndarray]] = [[] for _ in range(self.num_objects)]
        ends = np.cumsum(self.ring_lengths)[:-1]
        vertices = self.as_subclass(Tensor).detach().cpu().double().numpy()
        for index, ring in zip(self.ring_objects, np.split(vertices, ends) if self.ring_lengths else ()):
            objects[index].append(ring)
        return objects

    def draw(self) -> Tensor:
        """Boolean masks [N,H,W], pixel for pixel pycocotools'."""
        masks = np.zeros((self.num_objects, *self.canvas_size), bool)
        for mask, rings in zip(masks, self.rings()):
            _draw(rings, mask)
        return torch.from_numpy(masks)

    def draw_visible(self) -> tuple[Tensor, Tensor]:
        """Masks [n,H,W] of the objects that cover a pixel of the canvas, and their numbers, int64 [n].

        The masks are drawn into one array, one object at a time, so that thousands of objects never exist twice.
        """
        near = [(index, rings) for index, rings in enumerate(self.rings()) if all(_extent(rings, self.canvas_size))]
        masks = np.zeros((len(near), *self.canvas_size), bool)  # pages that nobody draws on take no memory
        drawn: list[int] = []
        for index, rings in near:
            if _draw(rings, masks[len(drawn)]):
                drawn.append(index)
        return torch.from_numpy(masks[: len(drawn)]), torch.tensor(drawn, dtype=torch.int64)

    @classmethod
    def _wrap_output(cls, output: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """What torchvision calls where a clone or a move stays a tv_tensor: the rings go along."""
        output = super()._wrap_output(output, args, kwargs)
        like = next((arg for arg in args if isinstance(arg, Polygons)), None)
        if isinstance(output, Polygons) and like is not None:
            output.__dict__.update(like.__dict__)
        return output

    def __repr__(self, **_: Any) -> str:
        height, width = self.canvas_size
        return f"Polygons({self.num_objects} objects, {len(self.ring_lengths)} rings; {height}x{width})"


def _extent(rings: list[np.ndarray], canvas_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the part of the canvas, from its upper left corner, that can hold pixels of the rings."""
    if not rings:
        return 0, 0
    low = np.min([ring.min(0) for ring in rings], axis=0)
    high = np.max([ring.max(0) for ring in rings], axis=0)
    height, width = canvas_size
    if low[0] >= width or low[1] >= height or high[0] <= 0 or high[1] <= 0:
        return 0, 0
    return min(height, int(np.ceil(high[1]))), min(width, int(np.ceil(high[0])))


def _draw(rings: list[np.ndarray], mask: np.ndarray) -> bool:
    """Draw the union of rings into an empty mask bool [H,W]; whether it covers a pixel."""
    height, width = _extent(rings, mask.shape)
    if not height or not width:
        return False
    rle = coco_mask.merge(coco_mask.frPyObjects([ring.reshape(-1) for ring in rings], height, width))
    left, top, w, h = (int(value) for value in coco_mask.toBbox(rle))
    if not w or not h:
        return False
    window = slice(top, top + h), slice(left, left + w)
    mask[window] = coco_mask.decode(rle)[window]  # column by column in memory: only the window is turned
    return True


# ---------------------------------------------------------------- kernels


def _scale(polygons: Polygons, x: float, y: float) -> Tensor:
    return polygons.as_subclass(Tensor) * torch.tensor([x, y], dtype=polygons.dtype, device=polygons.device)


def _shift(vertices: Tensor, x: float, y: float) -> Tensor:
    return vertices.as_subclass(Tensor) + torch.tensor([x, y], dtype=vertices.dtype, device=vertices.device)


@F.register_kernel(F.resize, Polygons)
def _resize(polygons: Polygons, size: Sequence[int] | None, **_: Any) -> Polygons:
    if size is None or isinstance(size, int) or len(size) != 2:
        raise ValueError(f"Polygons are resized to a size (height, width), not to {size}")
    (old_height, old_width), (height, width) = polygons.canvas_size, size
    return polygons.moved(_scale(polygons, width / old_width, height / old_height), (height, width))


@F.register_kernel(F.crop, Polygons)
def _crop(polygons: Polygons, top: int, left: int, height: int, width: int) -> Polygons:
    return polygons.moved(_shift(polygons, -left, -top), (height, width))


@F.register_kernel(F.pad, Polygons)
def _pad(polygons: Polygons, padding: int | Sequence[int], **_: Any) -> Polygons:
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * (4 // len(sides))  # all, or (left and right, top and bottom), or each
    height, width = polygons.canvas_size
    return polygons.moved(_shift(polygons, left, top), (height + top + bottom, width + left + right))


@F.register_kernel(F.horizontal_flip, Polygons)
def _horizontal_flip(polygons: Polygons) -> Polygons:
    return polygons.moved(_shift(_scale(polygons, -1, 1), polygons.canvas_size[1], 0), polygons.canvas_size)


@F.register_kernel(F.vertical_flip, Polygons)
def _vertical_flip(polygons: Polygons) -> Polygons:
    return polygons.moved(_shift(_scale(polygons, 1, -1), 0, polygons.canvas_size[0]), polygons.canvas_size)


def _refuse(polygons: Polygons, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("Polygons can be resized, cropped, padded and flipped; draw() them for anything else")


for _functional in (F.rotate, F.affine, F.perspective, F.elastic):  # without a kernel they would stay where they are
    F.register_kernel(_functional, Polygons)(_refuse)
