"""What the published mapper classes share: built from a recipe, called with a record, augmentations to replace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mask2former.config.configurable import configurable
from mask2former.data.dataset_mappers.augmentations import AugmentationList
from mask2former.data.dataset_mappers.build import PadSmaller, published_arguments
from mask2former.data.mapper import Annotation, TrainMapper
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


class PublishedMapper:
    """A training mapper as a class to build on: `__call__(record)` gives the sample.

    Made of a recipe, `Mapper(cfg, is_train)`, or of the arguments below, which `from_config` gets out of a recipe; a
    subclass may change either. It may also change `self.augmentations` (or `self.tfm_gens`, the same under its older
    name) after `super().__init__`: transforms of torchvision v2, or of detectron2's kind. Padding to
    INPUT.SIZE_DIVISIBILITY follows them, where the recipe asks for it and the sample is smaller.

    Entered in `mask2former.data.MAPPERS`, the class or a subclass can be named in INPUT.DATASET_MAPPER_NAME.

    Args:
        is_train: True; or the labels of the training data, which is what MAPPERS' entries are called with.
        augmentations, tfm_gens: what happens to image and annotation, in order; give one of the two.
        image_format: "RGB" or "BGR".
        ignore_label: class id of pixels without class.
        size_divisibility: edge in pixels of the square that smaller samples are padded to; 0 or less: none.

    Raises:
        UserError: `is_train` is False; or see `build.published_arguments`.
    """

    mapper_name = ""  # in INPUT.DATASET_MAPPER_NAME
    arguments: ClassVar[tuple[str, ...]] = ()  # those that the published class has
    mask_fill = 0  # what comes into masks from outside the image

    @configurable
    def __init__(
        self,
        is_train: bool | LabelSet = True,
        *,
        augmentations: Sequence[Any] | None = None,
        tfm_gens: Sequence[Any] | None = None,
        image_format: str = "RGB",
        ignore_label: int = 255,
        size_divisibility: int = -1,
    ):
        self.is_train, self.img_format = True, image_format
        self.ignore_label, self.size_divisibility = ignore_label, size_divisibility
        self.tfm_gens = tfm_gens if augmentations is None else augmentations
        annotation = self.annotation(is_train if isinstance(is_train, LabelSet) else None, ignore_label)
        self._mapper = TrainMapper(annotation, AugmentationList([]), image_format)
        self._steps: list[Any] = []  # that the mapper's transform is made of

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool | LabelSet = True) -> dict[str, Any]:
        """The arguments of `__init__` that a recipe says."""
        if not is_train:
            raise UserError(f"{cls.__name__} makes training samples; evaluation has a mapper of its own.")
        labels = is_train if isinstance(is_train, LabelSet) else None
        found = published_arguments(cfg, cls.mapper_name, labels)
        return {name: found[name] for name in ("is_train", *cls.arguments)}

    @staticmethod
    def annotation(labels: LabelSet | None, ignore_label: int) -> Annotation:
        """What the targets are made from; labels None: unknown."""
        raise NotImplementedError

    @property
    def augmentations(self) -> Sequence[Any]:
        """What happens to image and annotation, in order."""
        return self.tfm_gens

    @augmentations.setter
    def augmentations(self, augmentations: Any) -> None:
        self.tfm_gens = augmentations

    def __call__(self, dataset_dict: dict) -> dict:
        """One record -> "image" and the targets; see `mask2former.data.mapper.TrainMapper`."""
        steps = [self.tfm_gens] if callable(self.tfm_gens) else [*self.tfm_gens]
        if steps != self._steps:  # lists can be changed at any time
            padding = [PadSmaller(self.size_divisibility, self.mask_fill)] if self.size_divisibility > 0 else []
            self._mapper.transform = AugmentationList([*steps, *padding])
            _set_mask_fill(self._mapper.transform, self.mask_fill)
            self._steps = steps
        return self._mapper(dataset_dict)


def _set_mask_fill(step: Any, value: int) -> None:
    """Tell detectron2-like augmentations what comes into masks from outside; one that was told keeps its own."""
    if hasattr(type(step), "mask_fill") and "mask_fill" not in vars(step):
        step.mask_fill = value
    for inner in (*getattr(step, "transforms", ()), getattr(step, "aug", None)):
        if inner is not None:
            _set_mask_fill(inner, value)
