"""Which records are trained on: the ones with objects, and those that a mapper can read; what classes they show."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mask2former.data.datasets.checks import in_threads
from mask2former.data.datasets.video_records import frame_records, is_video, noun_of, objects_of
from mask2former.data.reading import read_mask
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)


def without_empty(records: Sequence[dict]) -> list[dict]:
    """The records with at least one annotation that is no crowd.

    Raises:
        UserError: none is left.
    """
    kept = [r for r in records if any(not annotation.get("iscrowd") for annotation in objects_of(r))]
    if not kept:
        raise UserError(
            f"None of the {len(records)} {noun_of(records)} of DATASETS.TRAIN has an annotation other than crowds. "
            "Correct the annotation files, or set DATALOADER.FILTER_EMPTY_ANNOTATIONS False."
        )
    if len(kept) < len(records):
        logger.info(
            "%d of %d training %s have no annotation, or crowds alone, and are left out "
            "(DATALOADER.FILTER_EMPTY_ANNOTATIONS)",
            len(records) - len(kept),
            len(records),
            noun_of(records),
        )
    return kept


def check_fit(mapper: str, sources: Mapping[str, str], records: Sequence[dict]) -> None:
    """Raise UserError unless every record has what a mapper reads.

    Args:
        mapper: name of the mapper.
        sources: for each mapper with known needs, the key that its records must have.
        records: what it is to read.
    """
    missing = next((r for r in records if mapper in sources and sources[mapper] not in r), None)
    if missing is None:
        return
    fitting = [name for name, key in sources.items() if all(key in record for record in records)]
    remedy = (
        f"Mappers that fit: {', '.join(fitting)}." if fitting else "No mapper fits all data sets of DATASETS.TRAIN."
    )
    raise UserError(
        f"INPUT.DATASET_MAPPER_NAME {mapper!r} reads {sources[mapper]!r}, which the record of image "
        f"{frame_records(missing)[0]['file_name']} does not have. {remedy}"
    )


def check_videos(mapper: str, of_images: Collection[str], records: Sequence[dict]) -> None:
    """Raise UserError where a mapper whose samples are images is to read videos.

    Args:
        mapper: name of the mapper.
        of_images: the mappers whose samples are images.
        records: what it is to read.
    """
    video = next((record for record in records if is_video(record)), None)
    if video is not None and mapper in of_images:
        raise UserError(
            f"DATASETS.TRAIN has videos, such as the one with frame {video['file_names'][0]}, but "
            f"INPUT.DATASET_MAPPER_NAME {mapper!r} makes samples of images. Set INPUT.DATASET_MAPPER_NAME ytvis and "
            "MODEL.META_ARCHITECTURE VideoMaskFormer."
        )


def image_classes(records: Sequence[dict], source: str, ignore_label: int) -> list[set[int]]:
    """The class numbers in each image, from "annotations", "pan_seg_file_name" or "sem_seg_file_name".

    Semantic masks are all read for it, in threads; `ignore_label` is no class of theirs.
    """
    if source == "annotations":
        return [{annotation["category_id"] for annotation in objects_of(record)} for record in records]
    if source == "pan_seg_file_name":
        return [{segment["category_id"] for segment in record["segments_info"]} for record in records]
    logger.info("reading %d masks once for the frequencies of their classes", len(records))
    present = in_threads(lambda record: np.bincount(read_mask(record[source]).reshape(-1)).nonzero()[0], records)
    return [set(ids.tolist()) - {ignore_label} for ids in present]
