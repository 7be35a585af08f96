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

from mask2former.structures.compact_masks import CompactMasks

# V vertices of all rings, N objects, H W canvas size in pixels; x, y in pixels, (0, 0) is the upper left corner of the
# upper left pixel


class Polygons(tv_tensors.TVTensor):
    """The outlines of N objects as one tensor [V,2] of (x, y); an object is the union of its rings.

    Coordinates may lie outside the canvas. What does, or did before padding, is cut off when the objects are drawn.
    `torchvision.transforms.v2` resizes, crops, pads and flips polygons together with the image; transforms that have no
    kernel for them raise.

    Args:
        vertices: [V,2] (x, y), kept in float64 unless it is a float tensor already; the rings one after the other.
        ring_lengths: vertices of each ring; they sum to V.
        ring_objects: the object, 0 to N - 1, that each ring belongs to.
        num_objects: N; an object without rings is empty.
        canvas_size: (H, W).
        shown: (x0, y0, x1, y1) of the canvas without padding, which stays empty; None: all of it.
    """

    ring_lengths: tuple[int, ...]
    ring_objects: tuple[int, ...]
    num_objects: int
    canvas_size: tuple[int, int]
    shown: tuple[float, float, float, float]

    def __new__(
        cls,
        vertices: Any,
        ring_lengths: Sequence[int],
        ring_objects: Sequence[int],
        num_objects: int,
        canvas_size: tuple[int, int],
        shown: tuple[float, float, float, float] | None = None,
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
        polygons.shown = shown or (0.0, 0.0, float(canvas_size[1]), float(canvas_size[0]))
        return polygons

    @classmethod
    def from_coco(cls, segmentations: Sequence[Sequence[Sequence[float]]], canvas_size: tuple[int, int]) -> Polygons:
        """From COCO's form: for each object a list of rings, each a flat list x0, y0, x1, y1, ..."""
        rings = [np.asarray(ring, np.float64) for rings in segmentations for ring in rings]
        objects = [index for index, rings in enumerate(segmentations) for _ in rings]
        vertices = np.concatenate(rings) if rings else np.zeros(0)
        return cls(vertices, [len(ring) // 2 for ring in rings], objects, len(segmentations), canvas_size)

    def moved(
        self,
        vertices: Tensor,
        canvas_size: tuple[int, int],
        shown: tuple[float, float, float, float] | None = None,
    ) -> Polygons:
        """The same rings with other coordinates [V,2] on another canvas."""
        return Polygons(vertices, self.ring_lengths, self.ring_objects, self.num_objects, canvas_size, shown)

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
            if window := _window(rings, self.shown):
                x0, y0, x1, y1 = window
                mask[y0:y1, x0:x1] = _draw(rings, (0, 0, x1, y1))[y0:, x0:]
        return torch.from_numpy(masks)

    def draw_visible(self) -> tuple[CompactMasks, Tensor]:
        """Masks of the n objects that cover a pixel of the canvas, and their numbers, int64 [n].

        Each is drawn and kept in a window of its own, many times faster than on the canvas; in one mask of a thousand,
        a pixel that an edge halves exactly is counted the other way.
        """
        drawn, crops, corners = [], [], []
        for k, rings in enumerate(self.rings()):
            window = _window(rings, self.shown)
            pixels = _draw(rings, window) if window else None
            if pixels is not None and pixels.any():
                drawn.append(k)
                crops.append(torch.from_numpy(pixels))
                corners.append(window[:2])
        return CompactMasks.from_crops(crops, corners, self.canvas_size), torch.tensor(drawn, dtype=torch.int64)

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


def _window(rings: list[np.ndarray], shown: tuple[float, float, float, float]) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) in whole pixels: the part of what is shown that can hold pixels of the rings; None: no part."""
    if not rings:
        return None
    vertices = np.concatenate(rings)
    x0, y0 = np.maximum(np.floor(vertices.min(0)), np.round(shown[:2])).astype(int).tolist()
    x1, y1 = np.minimum(np.ceil(vertices.max(0)), np.round(shown[2:])).astype(int).tolist()
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _draw(rings: list[np.ndarray], window: tuple[int, int, int, int]) -> np.ndarray:
    """The union of rings inside the window (x0, y0, x1, y1), bool [y1 - y0,x1 - x0]."""
    x0, y0, x1, y1 = window
    corner = np.array([x0, y0])
    # pycocotools rounds to fifths of a pixel. Vertices that are rounded already may be shifted by whole pixels.
    moved = [np.where(corner > 0, np.trunc(5 * ring + 0.5) / 5 - corner, ring) for ring in rings]
    rle = coco_mask.merge(coco_mask.frPyObjects([ring.reshape(-1) for ring in moved], y1 - y0, x1 - x0))
    return np.ascontiguousarray(coco_mask.decode(rle), dtype=bool)


# ---------------------------------------------------------------- kernels


def _scaled(
    polygons: Polygons, scale: tuple[float, float], shift: tuple[float, float], canvas_size: tuple[int, int]
) -> Polygons:
    """Everything at (x, y) * scale + shift; what the canvas does not show, a larger one will not show again."""
    factor, offset = torch.tensor([scale, shift], dtype=polygons.dtype, device=polygons.device)
    corners = np.sort(np.reshape(polygons.shown, (2, 2)) * scale + shift, axis=0)
    shown = np.clip(corners, 0, canvas_size[::-1]).flatten().tolist()
    return polygons.moved(polygons.as_subclass(Tensor) * factor + offset, canvas_size, tuple(shown))


@F.register_kernel(F.resize, Polygons)
def _resize(polygons: Polygons, size: Sequence[int] | None, **_: Any) -> Polygons:
    if size is None or isinstance(size, int) or len(size) != 2:
        raise ValueError(f"Polygons are resized to a size (height, width), not to {size}")
    (old_height, old_width), (height, width) = polygons.canvas_size, size
    return _scaled(polygons, (width / old_width, height / old_height), (0, 0), (height, width))


@F.register_kernel(F.crop, Polygons)
def _crop(polygons: Polygons, top: int, left: int, height: int, width: int) -> Polygons:
    return _scaled(polygons, (1, 1), (-left, -top), (height, width))


@F.register_kernel(F.pad, Polygons)
def _pad(polygons: Polygons, padding: int | Sequence[int], **_: Any) -> Polygons:
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * (4 // len(sides))  # all, or (left and right, top and bottom), or each
    height, width = polygons.canvas_size
    return _scaled(polygons, (1, 1), (left, top), (height + top + bottom, width + left + right))


@F.register_kernel(F.horizontal_flip, Polygons)
def _horizontal_flip(polygons: Polygons) -> Polygons:
    return _scaled(polygons, (-1, 1), (polygons.canvas_size[1], 0), polygons.canvas_size)


@F.register_kernel(F.vertical_flip, Polygons)
def _vertical_flip(polygons: Polygons) -> Polygons:
    return _scaled(polygons, (1, -1), (0, polygons.canvas_size[0]), polygons.canvas_size)


def _refuse(polygons: Polygons, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError("Polygons can be resized, cropped, padded and flipped; draw() them for anything else")


for _functional in (F.rotate, F.affine, F.perspective, F.elastic):  # without a kernel they would stay where they are
    F.register_kernel(_functional, Polygons)(_refuse)
