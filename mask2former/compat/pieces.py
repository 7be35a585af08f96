"""What detectron2's own augmentations have in common here: drawn numbers, and what they do to pixels and points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchvision import tv_tensors

from mask2former.data.dataset_mappers.augmentations import (
    Augmentation,
    Transform,
    as_array,
    as_ids,
    as_image,
    as_map,
    as_mask,
)
from mask2former.structures import Polygons


class Piece(Augmentation):
    """An augmentation whose parameters are numbers: `make_params` draws them, `transform` and `matrix` obey."""

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None = None) -> Transform:
        masks = [] if sem_seg is None else [as_ids(sem_seg)]
        return _Drawn(self, self.make_params([as_image(image), *masks]))

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        raise NotImplementedError

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        raise NotImplementedError

    def matrix(self, params: dict[str, Any]) -> np.ndarray:
        """[2,3], from (x, y, 1) to (x, y): where points go. Colours leave them where they are."""
        return np.eye(2, 3)

    def fill_of(self, inpt: Any) -> int:
        """What comes into a mask from outside: the ignore value into class ids, nothing into layers of objects."""
        return self.mask_fill if isinstance(inpt, tv_tensors.Mask) and inpt.ndim == 2 else 0


class _Drawn(Transform):
    """A piece with the parameters it has drawn, for arrays."""

    def __init__(self, piece: Piece, params: dict[str, Any]):
        self.piece, self.params = piece, params

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        moved = as_array(self.piece.transform(as_image(img), self.params))
        return np.ascontiguousarray(moved[:, :, 0] if img.ndim == 2 else moved)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return as_map(self.piece.transform(as_mask(segmentation), self.params))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return moved_points(coords, self.piece.matrix(self.params))


def moved_points(coords: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points [N,2] moved by a matrix [2,3]."""
    return np.asarray(coords, float) @ matrix[:, :2].T + matrix[:, 2]


def size_of(flat_inputs: list[Any]) -> tuple[int, int]:
    """(H, W) that image and annotation share."""
    first = flat_inputs[0]
    return first.canvas_size if isinstance(first, Polygons) else tuple(first.shape[-2:])


def uniform(low: float, high: float) -> float:
    """A number in [low, high), from torch's generator as all random numbers of samples."""
    return low + float(torch.rand(())) * (high - low)
