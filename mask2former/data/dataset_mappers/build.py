"""Recipe -> the mapper behind one of the published classes, and its padding."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from mask2former.data import transforms as T
from mask2former.data.build import MAPPERS
from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.data.mapper import TrainMapper
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

NEVER_PADDED = ("coco_instance_lsj", "coco_panoptic_lsj", "detr_panoptic")  # to INPUT.SIZE_DIVISIBILITY


def build_published_mapper(cfg, name: str, labels: LabelSet | None) -> TrainMapper:
    """The mapper `name` of INPUT.DATASET_MAPPER_NAME; labels None: those of the first training data set.

    Raises:
        UserError: no labels are given and DATASETS.TRAIN is empty, or anything that building the mapper finds.
    """
    if labels is None:
        if not cfg.DATASETS.TRAIN:
            raise UserError(f"The mapper {name!r} needs the classes of a data set, but DATASETS.TRAIN is empty.")
        labels = labels_of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
    return MAPPERS[name](cfg, labels)


def build_padding(cfg, name: str, mask_fill: int) -> list[v2.Transform]:
    """What follows replaced augmentations: samples smaller than INPUT.SIZE_DIVISIBILITY are padded to it."""
    size = cfg.INPUT.SIZE_DIVISIBILITY
    return [_PadSmaller(size, mask_fill)] if size > 0 and name not in NEVER_PADDED else []


class _PadSmaller(T.PadTo):
    """Samples that are larger stay as they are: who replaces the augmentations has chosen their size."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = flat_inputs[0].shape[-2:]
        return {"padding": [0, 0, max(0, self.size - width), max(0, self.size - height)]}
