"""Objects of an image as evaluators keep them while a data set passes: run lengths, and arrays for the rest."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mask2former.evaluation.encoding import EncodedMasks

# N objects


@dataclass(frozen=True)
class ImageObjects:
    """Predicted or true objects of one image.

    image_id    as in the record
    masks       N masks
    columns     arrays with N rows, by name: what is known of an object beside its mask
    """

    image_id: Hashable
    masks: EncodedMasks
    columns: dict[str, np.ndarray]


def id_order(image_id: Hashable) -> tuple[bool, Hashable]:
    """Sort key of image ids: ascending, as pycocotools orders them; numbers before text."""
    return isinstance(image_id, str), image_id


def coco_annotations(images: Sequence[ImageObjects], columns: Mapping[str, str], masks: bool) -> list[dict]:
    """The objects of all images as COCO's annotations.

    Args:
        images: their numbers, from 1, become the `image_id`.
        columns: key of an annotation -> name of the column that it comes from.
        masks: whether each also has its `segmentation`, compressed RLE.

    Returns:
        dicts with `id`, from 1 (0 would stand for no match), `image_id`, the keys of `columns`, and `segmentation`.
    """
    found: list[dict] = []
    for number, image in enumerate(images, 1):
        if masks:
            size = list(image.masks.size)
            own = [{"segmentation": {"size": size, "counts": counts}} for counts in image.masks.counts]
        else:
            own = [{} for _ in image.masks.counts]
        for key, column in columns.items():
            for annotation, value in zip(own, image.columns[column].tolist(), strict=True):
                annotation[key] = value
        for annotation in own:
            annotation["image_id"] = number
        found += own
    for i, annotation in enumerate(found, 1):
        annotation["id"] = i
    return found
