"""Recipe -> what the published mapper classes are made of."""

from __future__ import annotations

from typing import Any

from mask2former.data import transforms as T
from mask2former.data.build import MAPPERS
from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


def published_arguments(cfg, name: str, labels: LabelSet | None) -> dict[str, Any]:
    """The arguments of the published class behind `name` of INPUT.DATASET_MAPPER_NAME, and more.

    Args:
        cfg: the recipe.
        name: of the mapper.
        labels: of the training data; None: those of the first training data set.

    Raises:
        UserError: no labels are given and DATASETS.TRAIN is empty, or anything that building the mapper finds.
    """
    if labels is None:
        if not cfg.DATASETS.TRAIN:
            raise UserError(f"The mapper {name!r} needs the classes of a data set, but DATASETS.TRAIN is empty.")
        labels = labels_of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
    steps = [*MAPPERS[name](cfg, labels).transform.transforms]
    return {
        "is_train": labels,
        "augmentations": steps,
        "tfm_gens": steps,
        "image_format": cfg.INPUT.FORMAT,
        "ignore_label": labels.ignore_label,
        "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        "sampling_frame_num": cfg.INPUT.SAMPLING_FRAME_NUM,
        "sampling_frame_range": cfg.INPUT.SAMPLING_FRAME_RANGE,
        "sampling_frame_shuffle": cfg.INPUT.SAMPLING_FRAME_SHUFFLE,
    }


class PadSmaller(T.PadTo):
    """Samples that are larger stay as they are: who replaces the augmentations has chosen their size."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = flat_inputs[0].shape[-2:]
        return {"padding": [0, 0, max(0, self.size - width), max(0, self.size - height)]}
