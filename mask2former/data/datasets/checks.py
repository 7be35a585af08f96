"""What can be wrong with a semantic data set, found before training or evaluation starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mask2former.data.reading import read_image, read_mask, read_size
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

PIXELS_CHECKED = 1000  # records whose files are read whole at the start; the mapper checks each one while training
_UNSTATED_IGNORE_VALUE = 255  # default of MODEL.SEM_SEG_HEAD.IGNORE_VALUE: the recipe leaves it to the data set


def check_class_count(name: str, labels: LabelSet, num_classes: int) -> None:
    """Raise UserError unless data set `name` has the number of classes that the model is built for."""
    if labels.num_classes == num_classes:
        return
    shown = ", ".join(labels.names[:5]) + (", ..." if labels.num_classes > 5 else "")
    raise UserError(
        f"Data set {name!r} has {labels.num_classes} classes ({shown}), but MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
        f"{num_classes}. Set MODEL.SEM_SEG_HEAD.NUM_CLASSES {labels.num_classes}, or correct the class list."
    )


def check_ignore_label(name: str, labels: LabelSet, recipe_value: int) -> None:
    """Check the ignore value of data set `name`, which is what counts, against MODEL.SEM_SEG_HEAD.IGNORE_VALUE.

    A class with that id is allowed, for sets that list "void" among their classes, and said.

    Raises:
        UserError: the ignore value is no number that a mask can hold, or the recipe asks for another one.
    """
    ignored = labels.ignore_label
    remedy = f"IGNORE_LABEL under DATASETS.CUSTOM, or MetadataCatalog.get({name!r}).set(ignore_label=...)"
    if not isinstance(ignored, int) or ignored < 0:
        raise UserError(f"The ignore value of data set {name!r} is {ignored!r}; expected 0 or more: {remedy}.")
    if recipe_value not in (ignored, _UNSTATED_IGNORE_VALUE):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {recipe_value}, but data set {name!r} ignores {ignored}. Set "
            f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE {ignored}, or the ignore value of the data set ({remedy})."
        )
    if ignored < labels.num_classes:
        logger.warning(
            "class %d (%s) of data set %r is its ignore value, too: it is neither trained nor evaluated",
            ignored,
            labels.names[ignored],
            name,
        )


def check_mask(mask: np.ndarray, size: tuple[int, int], num_classes: int, ignore_label: int, path: str) -> None:
    """Raise UserError unless `mask` (int32 [H,W]) has the image's (H, W), ids below num_classes or the ignore value."""
    check_mask_size(mask.shape, size, path)
    if mask.size and mask.min() >= 0 and mask.max() < num_classes:
        return
    wrong = mask[((mask < 0) | (mask >= num_classes)) & (mask != ignore_label)]
    if not wrong.size:
        return
    ids, counts = np.unique(wrong, return_counts=True)
    found = ", ".join(f"{i} ({n} pixels)" for i, n in zip(ids[:5], counts[:5])) + (", ..." if len(ids) > 5 else "")
    raise UserError(
        f"Mask {path} has the values {found}; expected class ids from 0 to {num_classes - 1} or the ignore value "
        f"{ignore_label}. Correct the mask, the class list, or the ignore value (IGNORE_LABEL under DATASETS.CUSTOM, "
        "ignore_label in the metadata)."
    )


def check_mask_size(mask_size: tuple[int, int], image_size: tuple[int, int], path: str) -> None:
    """Raise UserError unless the mask at `path` has the (H, W) of its image."""
    if tuple(mask_size) != tuple(image_size):
        raise UserError(
            f"Mask {path} has {mask_size[0]}x{mask_size[1]} pixels (height x width), its image {image_size[0]}x"
            f"{image_size[1]}; expected the same size. Export the mask again at the size of the image."
        )


def complete_records(name: str, records: Sequence[dict], masks_needed: bool) -> list[dict]:
    """Copies of the records with "height", "width" (from the file's header, upright) and "image_id".

    Raises:
        UserError: there is no record, one has no "file_name" (or no "sem_seg_file_name" where masks are needed), a
            file is missing or has no readable header, or a mask has another size than its image.
    """
    if not records:
        raise UserError(f"Data set {name!r} has no records. Put images in its folder or correct its registration.")
    needed = ("file_name", "sem_seg_file_name") if masks_needed else ("file_name",)
    for i, record in enumerate(records):
        absent = [key for key in needed if key not in record]
        if absent:
            raise UserError(
                f"Record {i} of data set {name!r} has no {absent[0]!r} (it has {sorted(record)}). Semantic "
                f"segmentation needs {' and '.join(needed)}; add it in the function registered for {name!r}."
            )
    return _in_threads(_complete, records)


def _complete(record: dict) -> dict:
    height, width = read_size(record["file_name"])
    stated = (record.get("height", height), record.get("width", width))
    if stated != (height, width):
        raise UserError(
            f"Image {record['file_name']} is {height}x{width} pixels (height x width, upright), but its record says "
            f"{stated[0]}x{stated[1]}. Correct the record, or leave height and width out."
        )
    if "sem_seg_file_name" in record:
        path = record["sem_seg_file_name"]
        check_mask_size(read_size(path, "Mask"), (height, width), path)
    return {"image_id": record["file_name"], **record, "height": height, "width": width}


def check_pixels(records: Sequence[dict], labels: LabelSet) -> None:
    """Read the images and masks of up to `PIXELS_CHECKED` records, evenly spread, to the last pixel."""
    count = min(len(records), PIXELS_CHECKED)
    spread = [records[i * len(records) // count] for i in range(count)]

    def check(record: dict) -> None:
        size = read_image(record["file_name"]).shape[:2]
        if "sem_seg_file_name" in record:
            path = record["sem_seg_file_name"]
            check_mask(read_mask(path), size, labels.num_classes, labels.ignore_label, path)

    _in_threads(check, spread)


def _in_threads(func: Callable, items: Sequence) -> list:
    """`func` of each item, in order; the first error in that order is raised."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        try:
            return list(pool.map(func, items))
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
