"""Sets of images that are trained on beside videos: their objects, numbered by the classes of the videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mask2former.structures import LabelSet
from mask2former.structures.labels import read_table
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

logger = logging.getLogger(__name__)


def with_classes_of_videos(
    name: str, records: Sequence[dict], labels: LabelSet, videos: str, wanted: LabelSet
) -> list[dict]:
    """Copies of records whose "annotations" have the class numbers of a set of videos.

    Classes go by their names; capitals, blanks, "_" and "-" do not matter. For COCO's own classes
    `tables/video_names.json` has what video sets call them, as in published joint training (Heo et al., VITA, NeurIPS
    2022): its cars are YouTube-VIS's sedans, its computer mouse is no animal. Objects of classes that the videos lack
    are left out, which is said; a record may be left without any.

    Args:
        name: of the set of images.
        records: its records.
        labels: its classes.
        videos: name of the set of videos.
        wanted: its classes.

    Raises:
        UserError: no class is common to both.
    """
    numbers = class_map(labels, wanted)
    if not numbers:
        raise UserError(
            f"No class of the images of {name!r} ({some(labels.names)}) is one of the videos of {videos!r} "
            f"({some(wanted.names)}); both are in DATASETS.TRAIN, and classes are matched by name. Take {name!r} out, "
            "or name its classes as those of the videos."
        )
    found = [_renumbered(record, numbers) for record in records]
    kept, given = (sum(len(record.get("annotations", ())) for record in part) for part in (found, records))
    logger.info(
        "data set %r: %d of %d classes are among those of %r: %s. %d of %d objects, of other classes, are left out",
        *(name, len(numbers), labels.num_classes, videos),
        ", ".join(_pair(labels.names[own], wanted.names[theirs]) for own, theirs in numbers.items()),
        *(given - kept, given),
    )
    return found


def class_map(labels: LabelSet, wanted: LabelSet) -> dict[int, int]:
    """Class number in `labels` -> that of the same class in `wanted`; without the classes that are not there."""
    theirs = {_plain(name): number for number, name in enumerate(wanted.names)}
    is_coco = labels.names == LabelSet.from_dict(read_table("coco_instance")).names
    called = read_table("video_names") if is_coco else {}
    found = {}
    for own, name in enumerate(labels.names):
        number = next((theirs[_plain(n)] for n in called.get(name, [name]) if _plain(n) in theirs), None)
        if number is not None:
            found[own] = number
    return found


def _renumbered(record: dict, numbers: dict[int, int]) -> dict:
    objects = [
        {**annotation, "category_id": numbers[annotation["category_id"]]}
        for annotation in record.get("annotations", ())
        if annotation["category_id"] in numbers
    ]
    return {**record, "annotations": objects} if "annotations" in record else record  # the mapper's check tells that


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _pair(own: str, theirs: str) -> str:
    return own if _plain(own) == _plain(theirs) else f"{own} ({theirs})"
