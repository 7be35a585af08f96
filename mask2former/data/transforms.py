"""Augmentations that move image and annotation together: torchvision v2 transforms on tv_tensors.

All take `tv_tensors.Image` (uint8 [3,H,W], RGB) with `tv_tensors.Mask` ([...,H,W], any integer type) or `Polygons` in
one call and draw their random numbers from torch's generator alone. A clip is one Image [T,3,H,W] with one Mask
[T,L,H,W], so its frames change alike. What a mask's pixels mean (class or segment ids)
is the caller's; areas outside a mask are filled with the value given to `PadTo`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mask2former.structures import Polygons
from mask2former.utils.errors import UserError

# T frames, L layers; H, W: size in pixels

_MOVED = (tv_tensors.Image, tv_tensors.Mask, Polygons)


def _size(inputs: list[Any]) -> tuple[int, int]:
    """(H, W) that image and annotation share."""
    return inputs[0].canvas_size if isinstance(inputs[0], Polygons) else tuple(inputs[0].shape[-2:])


def _randint(low: int, high: int) -> int:
    """A whole number in [low, high], both ends included."""
    return int(torch.randint(low, high + 1, ()))


def _resized(inpt: Any, size: tuple[int, int]) -> Any:
    """Image (antialiased bilinear), Mask (nearest) or Polygons at another (H, W), on the same grid of pixel centres."""
    if _size([inpt]) == tuple(size):
        return inpt
    if isinstance(inpt, Polygons):
        return F.resize(inpt, list(size))
    if isinstance(inpt, tv_tensors.Image):
        out = F.resize_image(inpt.as_subclass(torch.Tensor), list(size), antialias=True)
    else:  # torchvision samples masks half a pixel off the image's grid; NumPy gathers 5 times faster than torch
        pixels = inpt.as_subclass(torch.Tensor).numpy()
        axes = [(size[axis] / pixels.shape[axis], axis) for axis in (-2, -1)]
        for _, axis in sorted(axes):  # the axis that shrinks first
            new, old = size[axis], pixels.shape[axis]
            pixels = pixels.take((2 * np.arange(new) + 1) * old // (2 * new), axis)
        out = torch.from_numpy(pixels)
    return tv_tensors.wrap(out, like=inpt)


def shortest_edge_size(height: int, width: int, short: int, longest: int) -> tuple[int, int]:
    """(H, W) with the shorter side `short`, less where the longer one would pass `longest`; detectron2's rounding."""
    scale = short / min(height, width)
    if max(height, width) * scale > longest:
        scale = longest / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class ResizeShortestEdge(v2.Transform):
    """Resize so that the shorter side has a size drawn from `sizes`, the longer one at most `longest` pixels.

    Args:
        sizes: sizes to draw from ("choice") or the two ends of a range ("range", whole numbers); 0: leave as it is.
        longest: limit of the longer side in pixels.
        sampling: "choice" or "range"; "choice_by_clip" and "range_by_clip" are the same, as clips are moved whole.
    """

    _transformed_types = _MOVED

    def __init__(self, sizes: Sequence[int], longest: int, sampling: str = "choice"):
        super().__init__()
        if sampling.removesuffix("_by_clip") not in ("choice", "range"):
            raise UserError(
                f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {sampling!r}; expected 'choice' or 'range', for clips "
                "'choice_by_clip' or 'range_by_clip', too."
            )
        sampling = sampling.removesuffix("_by_clip")
        if not sizes or (sampling == "range" and len(sizes) != 2):
            wanted = "two sizes, smallest and largest" if sampling == "range" else "at least one size"
            raise UserError(f"INPUT.MIN_SIZE_TRAIN is {list(sizes)}; sampling {sampling!r} takes {wanted}.")
        self.sizes, self.longest, self.sampling = tuple(sizes), longest, sampling

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        in_range = self.sampling == "range"
        short = _randint(*self.sizes) if in_range else self.sizes[_randint(0, len(self.sizes) - 1)]
        return {"size": shortest_edge_size(height, width, short, self.longest) if short else (height, width)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _resized(inpt, params["size"])


class CropSize:
    """How large a random crop is.

    Args:
        kind: "absolute" (H, W), cut to the image; "absolute_range" (min, max) of each side; "relative" (share of H,
            share of W); "relative_range" (smallest shares of H and W, the largest is 1).
        size: the two numbers.
    """

    def __init__(self, kind: str, size: Sequence[float]):
        kinds = ("absolute", "absolute_range", "relative", "relative_range")
        if kind not in kinds:
            raise UserError(f"INPUT.CROP.TYPE is {kind!r}; expected one of {', '.join(kinds)}.")
        relative = kind.startswith("relative")
        if len(size) != 2 or min(size) <= 0 or (relative and max(size) > 1):
            wanted = "two shares in (0, 1]" if relative else "two sizes in pixels"
            raise UserError(f"INPUT.CROP.SIZE is {list(size)}; INPUT.CROP.TYPE {kind!r} takes {wanted}.")
        if kind == "absolute_range" and size[0] > size[1]:
            raise UserError(f"INPUT.CROP.SIZE is {list(size)}; 'absolute_range' takes the smaller size first.")
        self.kind, self.size = kind, tuple(size)

    def draw(self, height: int, width: int) -> tuple[int, int]:
        """(H, W) of a crop of an image of the given size."""
        a, b = self.size
        if self.kind == "absolute":
            return min(int(a), height), min(int(b), width)
        if self.kind == "absolute_range":
            low, high = int(a), int(b)
            return tuple(_randint(min(side, low), min(side, high)) for side in (height, width))
        if self.kind == "relative_range":
            drawn = torch.rand(2).tolist()
            a, b = a + drawn[0] * (1 - a), b + drawn[1] * (1 - b)
        return max(1, int(height * a + 0.5)), max(1, int(width * b + 0.5))


class RandomCrop(v2.Transform):
    """Cut out a random window, moving on when one class fills most of it (Mask2Former's semantic recipes).

    A window is taken when its labelled pixels belong to more than one class and the largest class covers less than
    `max_area` of them; after 10 windows the last one is taken as it is. `max_area` 1 takes the first.

    Args:
        size: how large the window is.
        max_area: share of the labelled pixels, INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
        ignore_label: id of pixels without label.
    """

    _transformed_types = _MOVED
    _TRIES = 10  # published

    def __init__(self, size: CropSize, max_area: float = 1.0, ignore_label: int = 255):
        super().__init__()
        self.size, self.max_area, self.ignore_label = size, max_area, ignore_label

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        sem_seg = next((m for m in flat_inputs if isinstance(m, tv_tensors.Mask) and m.ndim == 2), None)
        if self.max_area < 1 and sem_seg is None:
            raise ValueError("a crop limited by class area needs a [H,W] mask of class ids")
        for _ in range(self._TRIES):
            h, w = self.size.draw(height, width)
            top, left = _randint(0, height - h), _randint(0, width - w)
            if self.max_area >= 1 or self._mixed(sem_seg[top : top + h, left : left + w]):
                break
        return {"top": top, "left": left, "height": h, "width": w}

    def _mixed(self, window: torch.Tensor) -> bool:
        counts = torch.bincount(window.as_subclass(torch.Tensor).reshape(-1))
        if self.ignore_label < len(counts):
            counts[self.ignore_label] = 0
        return int((counts > 0).sum()) > 1 and int(counts.max()) < int(counts.sum()) * self.max_area

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._call_kernel(F.crop, inpt, **params)


class SSDColor(v2.RandomPhotometricDistort):
    """Colour changes of SSD with the published ranges; the channels keep their order.

    torchvision's arithmetic: brightness is a factor (published: an offset of up to 32), contrast and saturation
    blend with grey. Masks pass through.
    """

    def __init__(self) -> None:
        # 18 of OpenCV's 180 hue steps; 32 of 255 brightness levels
        super().__init__(brightness=(1 - 32 / 255, 1 + 32 / 255), hue=(-18 / 180, 18 / 180))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {**super().make_params(flat_inputs), "channel_permutation": None}


class LargeScaleJitter(v2.Transform):
    """Resize to a random share of a square and cut out what the square holds of it (Copy-Paste, sec. 3.1).

    The image is scaled so that it just fits a square of `size` times a factor drawn from [min_scale, max_scale]; where
    it then passes `size`, a window is drawn. The window is cut out of the source, at whole pixels, and scaled alone:
    pixels that nobody will see are not computed, and image, masks and polygons see one and the same grid. Its sides are
    rounded to source pixels, which changes the aspect by less than one pixel's share.

    Args:
        size: edge of the square in pixels, INPUT.IMAGE_SIZE; the result has at most this height and width.
        min_scale, max_scale: range of the factor, INPUT.MIN_SCALE and INPUT.MAX_SCALE.
    """

    _transformed_types = _MOVED

    def __init__(self, size: int, min_scale: float, max_scale: float):
        super().__init__()
        if size <= 0:
            raise UserError(f"INPUT.IMAGE_SIZE is {size}; expected a number of pixels above 0.")
        if not 0 < min_scale <= max_scale:
            raise UserError(
                f"INPUT.MIN_SCALE is {min_scale} and INPUT.MAX_SCALE {max_scale}; expected numbers above 0, the "
                "smaller one first."
            )
        self.size, self.min_scale, self.max_scale = size, min_scale, max_scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        sides = _size(flat_inputs)
        factor = self.min_scale + float(torch.rand(())) * (self.max_scale - self.min_scale)
        scale = factor * self.size / max(sides)
        (top, height, new_height), (left, width, new_width) = (self._window(side, scale) for side in sides)
        window = {"top": top, "left": left, "height": height, "width": width}
        return {"window": window, "size": (new_height, new_width)}

    def _window(self, side: int, scale: float) -> tuple[int, int, int]:
        """Along one axis: start and length of the window in source pixels, and its length in the result."""
        scaled = max(1, round(side * scale))
        if scaled <= self.size:
            return 0, side, scaled
        length = min(side, max(1, round(self.size / scale)))
        return _randint(0, side - length), length, self.size

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return _resized(self._call_kernel(F.crop, inpt, **params["window"]), params["size"])


class PadTo(v2.Transform):
    """Pad right and below to a square of `size` pixels; images with `image_fill`, masks with `mask_fill`."""

    _transformed_types = _MOVED

    def __init__(self, size: int, mask_fill: int, image_fill: int = 128):
        super().__init__()
        self.size, self.mask_fill, self.image_fill = size, mask_fill, image_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        if max(height, width) > self.size:
            raise UserError(
                f"An augmented image of {height}x{width} pixels does not fit INPUT.SIZE_DIVISIBILITY {self.size}, the "
                "size that samples are padded to. Crop (INPUT.CROP.ENABLED True, INPUT.CROP.SIZE), lower "
                "INPUT.MAX_SIZE_TRAIN, or set INPUT.SIZE_DIVISIBILITY -1."
            )
        return {"padding": [0, 0, self.size - width, self.size - height]}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        fill = self.mask_fill if isinstance(inpt, tv_tensors.Mask) else self.image_fill
        return self._call_kernel(F.pad, inpt, padding=params["padding"], fill=fill)


def random_flip(direction: str) -> v2.Transform:
    """Flip half of the samples: "horizontal" (left and right), "vertical" (up and down) or "none".

    "flip_by_clip", of video recipes, is "horizontal": clips are flipped whole.
    """
    flips = {
        "horizontal": v2.RandomHorizontalFlip,
        "vertical": v2.RandomVerticalFlip,
        "none": v2.Identity,
        "flip_by_clip": v2.RandomHorizontalFlip,
    }
    if direction not in flips:
        raise UserError(f"INPUT.RANDOM_FLIP is {direction!r}; expected one of {', '.join(flips)}.")
    return flips[direction]()


class RandomRotation(v2.Transform):
    """Turn by up to 15 degrees about a point in the middle fifth of the picture; what comes in from outside is 0."""

    _transformed_types = (tv_tensors.Image, tv_tensors.Mask)
    _DEGREES, _CENTER = 15.0, (0.4, 0.6)  # published, of the video mappers

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = _size(flat_inputs)
        angle, x, y = torch.rand(3).tolist()
        low, high = self._CENTER
        center = [(low + (high - low) * share) * side for share, side in ((x, width), (y, height))]
        return {"angle": (2 * angle - 1) * self._DEGREES, "center": center}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        mode = v2.InterpolationMode.BILINEAR if isinstance(inpt, tv_tensors.Image) else v2.InterpolationMode.NEAREST
        return self._call_kernel(F.rotate, inpt, interpolation=mode, **params)


# word of INPUT.AUGMENTATIONS -> what it adds, with the published ranges
CLIP_AUGMENTATIONS: dict[str, Callable[[], v2.Transform]] = {
    "brightness": lambda: v2.ColorJitter(brightness=0.1),  # factors in 0.9 to 1.1
    "contrast": lambda: v2.ColorJitter(contrast=0.1),
    "saturation": lambda: v2.ColorJitter(saturation=0.1),
    "rotation": RandomRotation,
}
