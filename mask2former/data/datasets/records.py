"""Records as a reader or a user's function gives them -> records with all that the rest of the package reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mask2former.data.datasets.checks import check_image_size, check_mask_size, in_threads
from mask2former.data.datasets.objects import completed
from mask2former.data.datasets.video_records import check_video, frame_records, is_video, objects_of
from mask2former.data.reading import read_size
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# evaluator_type -> the ground truth that its records have; other types take any
_TRUTH = {
    "sem_seg": ("sem_seg_file_name",),
    "cityscapes_sem_seg": ("sem_seg_file_name",),
    "coco": ("annotations",),
    "cityscapes_instance": ("annotations",),
    "ytvis": ("annotations",),
}
_ANY_TRUTH = ("sem_seg_file_name", "annotations", "pan_seg_file_name")


def complete_records(
    name: str, records: Sequence[dict], num_classes: int, evaluator_type: str | None, truth_needed: bool
) -> list[dict]:
    """Copies of the records with "image_id", "height" and "width", and with complete annotations.

    A size that a record states is believed; without it the header of the image is read, and of its maps. Records of
    videos have "file_names" and get "video_id" and "length"; their size is that of the first frame.

    Args:
        name: of the data set.
        records: at least one.
        num_classes: class numbers of annotations and segments are below it.
        evaluator_type: of the data set; tells which ground truth is needed.
        truth_needed: whether records must have ground truth.

    Raises:
        UserError: there is no record, one has neither "file_name" nor "file_names" or lacks its ground truth, a file
            is missing or has no readable header, a map has another size than its image, the lists of a video differ in
            length, or an annotation is broken.
    """
    if not records:
        raise UserError(
            f"Data set {name!r} has no records. Put images in its folder, list images or videos in its JSON file, or "
            "correct its registration."
        )
    truth = _TRUTH.get(evaluator_type, _ANY_TRUTH) if truth_needed else ()
    for i, record in enumerate(records):
        has_files = "file_name" in record or is_video(record)
        if not has_files or (truth and not any(key in record for key in truth)):
            wanted = "' or '".join(truth if has_files else ("file_name", "file_names"))
            raise UserError(
                f"Record {i} of data set {name!r} has no '{wanted}' (it has {sorted(record)}). Add it in the function "
                f"registered for {name!r}" + (f"; its evaluator_type is {evaluator_type!r}." if evaluator_type else ".")
            )
        if is_video(record):
            check_video(name, i, record)
    sizes = iter(in_threads(_read_size, [record for record in records if not _is_sized(record)]))
    found = [{**_identity(i, r), **r, **({} if _is_sized(r) else next(sizes))} for i, r in enumerate(records)]
    number, left_out = 0, 0
    for record in found:
        if "annotations" in record:
            given = len(objects_of(record))
            _complete_annotations(record, number)
            number += len(objects_of(record))
            left_out += given - len(objects_of(record))
        for frame in frame_records(record):
            _check_categories(name, frame, num_classes)
    if left_out:
        logger.warning("data set %r: %d annotations without segmentation are left out", name, left_out)
    return found


def _identity(position: int, record: dict) -> dict:
    """What tells a record from others, where it does not say so itself."""
    if is_video(record):
        return {"video_id": position, "length": len(record["file_names"])}
    return {"image_id": record["file_name"]}


def _is_sized(record: dict) -> bool:
    return "height" in record and "width" in record


def _read_size(record: dict) -> dict:
    """ "height" and "width" of a record without them, from the header of its (first) image; its maps must agree."""
    first = frame_records(record)[0]
    size = read_size(first["file_name"])
    fields = dict(zip(("height", "width"), size, strict=True))
    check_image_size({**fields, **first}, size)
    for key, what in (("sem_seg_file_name", "Mask"), ("pan_seg_file_name", "Panoptic map")):
        if key in record:
            check_mask_size(read_size(record[key], what), size, record[key])
    return fields


def _complete_annotations(record: dict, number: int) -> None:
    """Complete the annotations of a record in place; objects of images without id are numbered after `number`."""
    frames = [_completed_objects(frame) for frame in frame_records(record)]
    if is_video(record):
        record["annotations"] = frames
    else:
        record["annotations"] = [o if "id" in o else {"id": number + i, **o} for i, o in enumerate(frames[0], 1)]


def _completed_objects(record: dict) -> list[dict]:
    size, path = (record["height"], record["width"]), record["file_name"]
    objects = (completed(annotation, size, path) for annotation in record["annotations"])
    return [annotation for annotation in objects if annotation]


def _check_categories(name: str, record: dict, num_classes: int) -> None:
    for annotation in (*record.get("annotations", ()), *record.get("segments_info", ())):
        category = annotation.get("category_id")
        if not isinstance(category, int) or not 0 <= category < num_classes:
            raise UserError(
                f"An annotation of image {record['file_name']} in data set {name!r} has the category_id {category!r}; "
                f"expected 0 to {num_classes - 1}, the place in the list of classes. Map the ids where the records "
                "are made."
            )
