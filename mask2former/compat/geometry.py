"""detectron2's augmentations that move pixels, with its names and arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from mask2former.compat.pieces import Piece, size_of, uniform
from mask2former.data import transforms as ours

# H W size before, h w after; matrices [2,3] map (x, y, 1) to (x, y), both counted from the image's corner


class _Resizing(Piece):
    """Pieces that draw the new size."""

    _resize = ours.ResizeShortestEdge([0], 0)  # which knows how images, masks and polygons are resized

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) for an image of (H, W)."""
        raise NotImplementedError

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        before = size_of(flat_inputs)
        return {"before": before, "size": self.size(*before)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._resize.transform(inpt, params)

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        (height, width), (h, w) = params["before"], params["size"]
        return np.array([[w / width, 0, 0], [0, h / height, 0]])


class Resize(_Resizing):
    """To a fixed size: (h, w), or the edge of a square."""

    def __init__(self, shape: int | Sequence[int], interp: Any = None):
        super().__init__()
        self.shape = (shape, shape) if isinstance(shape, int) else tuple(shape)

    def size(self, height: int, width: int) -> tuple[int, int]:
        return self.shape


class ResizeShortestEdge(_Resizing):
    """As `mask2former.data.transforms.ResizeShortestEdge`."""

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: Any = None,
    ):
        super().__init__()
        lengths = [short_edge_length] * 2 if isinstance(short_edge_length, int) else short_edge_length
        self._sizes = ours.ResizeShortestEdge(lengths, max_size, sample_style)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"before": size_of(flat_inputs), **self._sizes.make_params(flat_inputs)}


class ResizeScale(_Resizing):
    """To fit a target size times a random scale, keeping the aspect (large-scale jitter's first step)."""

    def __init__(self, min_scale: float, max_scale: float, target_height: int, target_width: int, interp: Any = None):
        super().__init__()
        self.scales, self.target = (min_scale, max_scale), (target_height, target_width)

    def size(self, height: int, width: int) -> tuple[int, int]:
        scale = uniform(*self.scales) * min(self.target[0] / height, self.target[1] / width)
        return max(1, round(height * scale)), max(1, round(width * scale))


class RandomCrop_CategoryAreaConstraint(Piece):
    """As `mask2former.data.transforms.RandomCrop`."""

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ):
        super().__init__()
        nothing = sys.maxsize  # an id that no mask has
        ignored = nothing if ignored_category is None else ignored_category
        self._crop = ours.RandomCrop(ours.CropSize(crop_type, crop_size), single_category_max_area, ignored)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return self._crop.make_params(flat_inputs)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._crop.transform(inpt, params)

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        return np.array([[1, 0, -params["left"]], [0, 1, -params["top"]]], float)


class RandomCrop(RandomCrop_CategoryAreaConstraint):
    """A random window: crop_type "absolute", "absolute_range", "relative" or "relative_range"."""

    def __init__(self, crop_type: str, crop_size: Sequence[float]):
        super().__init__(crop_type, crop_size)


class FixedSizeCrop(Piece):
    """A random window of a fixed size (h, w); smaller images are padded right and below, unless `pad` is off."""

    def __init__(
        self, crop_size: Sequence[int], pad: bool = True, pad_value: float = 128.0, seg_pad_value: int | None = None
    ):
        super().__init__()
        self.crop_size, self.pad, self.pad_value = tuple(crop_size), pad, pad_value
        if seg_pad_value is not None:
            self.mask_fill = seg_pad_value

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        (height, width), (h, w) = size_of(flat_inputs), self.crop_size
        top, left = (int(torch.randint(0, max(0, room) + 1, ())) for room in (height - h, width - w))
        window = {"top": top, "left": left, "height": min(height, h), "width": min(width, w)}
        padding = [0, 0, max(0, w - width), max(0, h - height)] if self.pad else [0, 0, 0, 0]
        return {"window": window, "padding": padding}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = self.pad_value if isinstance(inpt, tv_tensors.Image) else self.fill_of(inpt)
        cropped = self._call_kernel(F.crop, inpt, **params["window"])
        return self._call_kernel(F.pad, cropped, padding=params["padding"], fill=fill)

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        return np.array([[1, 0, -params["window"]["left"]], [0, 1, -params["window"]["top"]]], float)


class RandomFlip(Piece):
    """Left and right change places, or with `vertical` (and not `horizontal`) up and down."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False):
        super().__init__()
        if horizontal == vertical:
            raise ValueError("RandomFlip takes one of horizontal and vertical; use two of them for both")
        self.prob, self.horizontal = prob, horizontal

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"flip": uniform(0, 1) < self.prob, "before": size_of(flat_inputs)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        flip = F.horizontal_flip if self.horizontal else F.vertical_flip
        return self._call_kernel(flip, inpt) if params["flip"] else inpt

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        height, width = params["before"]
        if not params["flip"]:
            return np.eye(2, 3)
        return np.array([[-1, 0, width], [0, 1, 0]] if self.horizontal else [[1, 0, 0], [0, -1, height]], float)
