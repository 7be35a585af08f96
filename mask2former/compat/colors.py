"""detectron2's augmentations of colour; masks and points stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from mask2former.compat.pieces import Piece, uniform
from mask2former.data import transforms as ours
from mask2former.data.dataset_mappers.augmentations import Transform


class NoOpTransform(Transform):
    """Leaves everything as it is."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return img

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords


class ColorTransform(NoOpTransform):
    """Changes an image's colours by a function of arrays."""

    def __init__(self, op: Callable[[np.ndarray], np.ndarray]):
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation


class _Blending(Piece):
    """Mixes the image with a plain one; a factor of 1 leaves it, 0 is the plain one."""

    _adjust: Callable  # torchvision's functional

    def __init__(self, intensity_min: float, intensity_max: float):
        super().__init__()
        self.factors = (intensity_min, intensity_max)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"factor": uniform(*self.factors)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return type(self)._adjust(inpt, params["factor"]) if isinstance(inpt, tv_tensors.Image) else inpt


class RandomBrightness(_Blending):
    """Mixes with black."""

    _adjust = staticmethod(F.adjust_brightness)


class RandomContrast(_Blending):
    """Mixes with the image's mean grey."""

    _adjust = staticmethod(F.adjust_contrast)


class RandomSaturation(_Blending):
    """Mixes with the image in grey."""

    _adjust = staticmethod(F.adjust_saturation)


class ColorAugSSDTransform(Piece):
    """As `mask2former.data.transforms.SSDColor`; drawn anew for each image.

    Args:
        img_format: of no effect: samples are RGB until the mapper hands them on.
    """

    def __init__(self, img_format: str = "RGB", *_: Any, **__: Any):
        super().__init__()
        self._color = ours.SSDColor()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return self._color.make_params(flat_inputs)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self._color.transform(inpt, params)
