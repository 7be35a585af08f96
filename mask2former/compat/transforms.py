"""detectron2's `data.transforms`, to the extent that recipes and user modules of this family use it.

The augmentations take detectron2's arguments, and move tv_tensors as ours do (see `mask2former.data.transforms`); on
their own, `get_transform(image)` draws what `apply_image`, `apply_segmentation` and `apply_coords` then repeat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import (  # detectron2 hands these on as they are
    BlendTransform,
    CropTransform,
    HFlipTransform,
    PadTransform,
    VFlipTransform,
)

from mask2former.compat.colors import (
    ColorAugSSDTransform,
    ColorTransform,
    NoOpTransform,
    RandomBrightness,
    RandomContrast,
    RandomSaturation,
)
from mask2former.compat.geometry import (
    FixedSizeCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
    RandomFlip,
    Resize,
    ResizeScale,
    ResizeShortestEdge,
)
from mask2former.compat.pieces import uniform
from mask2former.compat.rotation import RandomRotation
from mask2former.data.dataset_mappers.augmentations import (
    AugInput,
    Augmentation,
    AugmentationList,
    Transform,
    TransformList,
    as_augmentation,
)

__all__ = [
    "AugInput",
    "Augmentation",
    "AugmentationList",
    "BlendTransform",
    "ColorAugSSDTransform",
    "ColorTransform",
    "CropTransform",
    "FixedSizeCrop",
    "HFlipTransform",
    "NoOpTransform",
    "PadTransform",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomFlip",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
    "StandardAugInput",
    "Transform",
    "TransformGen",
    "TransformList",
    "VFlipTransform",
    "apply_augmentations",
    "apply_transform_gens",
]

TransformGen = Augmentation  # its older name
StandardAugInput = AugInput  # likewise


class RandomApply(Augmentation):
    """An augmentation, or a transform, that happens with probability `prob`."""

    def __init__(self, tfm_or_aug: Any, prob: float = 0.5):
        super().__init__()
        self.aug, self.prob = as_augmentation(tfm_or_aug), prob

    def get_transform(self, image: np.ndarray) -> Transform:
        return self.aug.get_transform(image) if uniform(0, 1) < self.prob else NoOpTransform()

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"inner": self.aug.make_params(flat_inputs) if uniform(0, 1) < self.prob else None}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return inpt if params["inner"] is None else self.aug.transform(inpt, params["inner"])


def apply_augmentations(augmentations: Sequence[Any], inputs: AugInput | np.ndarray) -> tuple[Any, TransformList]:
    """Draw and apply augmentations in order: (the changed input, or image, and what was drawn)."""
    given = inputs if isinstance(inputs, AugInput) else AugInput(inputs)
    drawn = given.apply_augmentations(augmentations)
    return (inputs if given is inputs else given.image), drawn


apply_transform_gens = apply_augmentations  # its older name
