"""What can be wrong with a data set, found before training or evaluation starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mask2former.data.datasets.video_records import frame_record, is_video
from mask2former.data.reading import read_image, read_mask, read_panoptic
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

logger = logging.getLogger(__name__)

PIXELS_CHECKED = 1000  # records whose files are read whole at the start; the mapper checks each one while training
PIXELS_READ = 500_000_000  # of all images read at the start, about ten seconds; 40 of 12 megapixels
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


def check_panoptic(ids: np.ndarray, size: tuple[int, int], segments: Sequence[dict], path: str) -> int:
    """The number of segments without a pixel in `ids` (int32 [H,W]), as those are that lie below others.

    Raises:
        UserError: `ids` has another size than the image, (H, W), or an id besides 0, void, that is not listed.
    """
    check_mask_size(ids.shape, size, path)
    changes = np.ones(ids.shape, bool)  # an id is at the left border, or right of another one
    np.not_equal(ids[:, 1:], ids[:, :-1], out=changes[:, 1:])
    found, listed = set(ids[changes].tolist()) - {0}, {segment["id"] for segment in segments}
    if unlisted := sorted(found - listed):
        raise UserError(
            f"Panoptic map {path} has the segment ids {some(unlisted)}, which its segments_info does not list. Segment "
            "ids are R + 256 G + 65536 B; correct the PNG or the list in the JSON file."
        )
    return len(listed - found)


def check_pixels(records: Sequence[dict], labels: LabelSet) -> None:
    """Read the images and maps of some records, evenly spread, to the last pixel; of videos, of some frames.

    There are `PIXELS_CHECKED` of them, or fewer where images are so large that they would hold more than
    `PIXELS_READ` pixels.

    Raises:
        UserError: a broken file, an image of another size than its record says, a map of another size than its image,
            or ids in a map that are no class or segment.
    """
    pictures = [(record, t) for record in records for t in range(len(record["file_names"]) if is_video(record) else 1)]
    pixels = sum(record["height"] * record["width"] for record, _ in pictures)
    count = min(len(pictures), PIXELS_CHECKED, max(1, PIXELS_READ * len(pictures) // max(pixels, 1)))
    chosen = (pictures[i * len(pictures) // count] for i in range(count))
    spread = [frame_record(record, t) if is_video(record) else record for record, t in chosen]

    def check(record: dict) -> int:
        size = read_checked_image(record).shape[:2]
        if "sem_seg_file_name" in record:
            path = record["sem_seg_file_name"]
            check_mask(read_mask(path), size, labels.num_classes, labels.ignore_label, path)
        if "pan_seg_file_name" in record:
            path = record["pan_seg_file_name"]
            return check_panoptic(read_panoptic(path), size, record["segments_info"], path)
        return 0

    hidden = in_threads(check, spread)
    if any(hidden):
        example = next(record["pan_seg_file_name"] for record, count in zip(spread, hidden) if count)
        logger.warning("%d listed segments have no pixel in their panoptic map, the first in %s", sum(hidden), example)


def read_checked_image(record: Mapping) -> np.ndarray:
    """The image of a record, uint8 RGB [H,W,3].

    Raises:
        UserError: the file is missing or broken, or of another size than the record says where it says one. Of a frame
            the message names the video, too.
    """
    try:
        pixels = read_image(record["file_name"])
        size = pixels.shape[:2]
        check_image_size({"height": size[0], "width": size[1], **record}, size)
    except UserError as error:
        if "video_id" not in record:
            raise
        raise UserError(f"Video {record['video_id']!r}: {error}") from error
    return pixels


def check_image_size(record: Mapping, size: tuple[int, int]) -> None:
    """Raise UserError unless the image of `record` has the height and width that the record says."""
    stated = (record["height"], record["width"])
    if stated == tuple(size):
        return
    remedy = "Correct the record, or leave height and width out."
    if "video_id" in record:
        remedy = "All frames of a video have one size, which is the record's or that of the first: resize the frame."
    raise UserError(
        f"Image {record['file_name']} is {size[0]}x{size[1]} pixels (height x width, upright), but its record says "
        f"{stated[0]}x{stated[1]}. {remedy}"
    )


def in_threads(func: Callable, items: Sequence) -> list:
    """`func` of each item, in order; the first error in that order is raised."""
    with ThreadPoolExecutor(max_workers=min(16, 2 * (os.cpu_count() or 1))) as pool:
        try:
            return list(pool.map(func, items))
        except UserError:
            pool.shutdown(cancel_futures=True)
            raise
