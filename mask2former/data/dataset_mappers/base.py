"""What the published mapper classes share: built from a recipe, called with a record, augmentations to replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mask2former.data.dataset_mappers.augmentations import AugmentationList
from mask2former.data.dataset_mappers.build import build_padding, build_published_mapper
from mask2former.data.targets import SemanticAnnotation
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


class PublishedMapper:
    """A training mapper as a class to build on: `__call__(record)` gives the sample.

    A subclass may give `self.augmentations` (or `self.tfm_gens`, its older name) another list after
    `super().__init__`: transforms of torchvision v2, or of detectron2's kind. Padding to INPUT.SIZE_DIVISIBILITY
    follows them, where the recipe asks for it and the sample is smaller.

    Entered in `mask2former.data.MAPPERS`, the class or a subclass can be named in INPUT.DATASET_MAPPER_NAME.

    Args:
        cfg: the recipe.
        is_train: True; or the labels of the training data, which is what MAPPERS' entries are called with.
    """

    mapper_name = ""  # in INPUT.DATASET_MAPPER_NAME

    def __init__(self, cfg: Any, is_train: bool | LabelSet = True):
        labels = is_train if isinstance(is_train, LabelSet) else None
        if not is_train:
            raise UserError(f"{type(self).__name__} makes training samples; evaluation has a mapper of its own.")
        self.is_train = True
        self._mapper = build_published_mapper(cfg, self.mapper_name, labels)
        annotation = self._mapper.annotation
        self._mask_fill = annotation.ignore_label if isinstance(annotation, SemanticAnnotation) else 0
        self._padding = build_padding(cfg, self.mapper_name, self._mask_fill)
        self._augmentations: Sequence[Any] = self._mapper.transform.transforms

    @property
    def augmentations(self) -> Sequence[Any]:
        """What happens to image and annotation, in order."""
        return self._augmentations

    @augmentations.setter
    def augmentations(self, augmentations: Any) -> None:
        self._augmentations = augmentations
        steps = [augmentations] if callable(augmentations) else augmentations
        moved = AugmentationList([*steps, *self._padding])
        _set_mask_fill(moved, self._mask_fill)
        self._mapper.transform = moved

    tfm_gens = augmentations

    def __call__(self, dataset_dict: dict) -> dict:
        """One record -> "image" and the targets; see `mask2former.data.mapper.TrainMapper`."""
        return self._mapper(dataset_dict)


def _set_mask_fill(step: Any, value: int) -> None:
    """Tell detectron2-like augmentations what comes into masks from outside; one that was told keeps its own."""
    if hasattr(type(step), "mask_fill") and "mask_fill" not in vars(step):
        step.mask_fill = value
    for inner in (*getattr(step, "transforms", ()), getattr(step, "aug", None)):
        if inner is not None:
            _set_mask_fill(inner, value)
