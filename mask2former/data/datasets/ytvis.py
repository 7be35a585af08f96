"""Video instances in YouTube-VIS's form: tracks of objects from one JSON file, frames from one folder.

OVIS, and DAVIS in this form, are read alike. A record is one video.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mask2former.data.catalog import MetadataCatalog
from mask2former.data.datasets.coco import IMAGES_REMEDY, ObjectReader, ObjectSource, register_source
from mask2former.data.datasets.coco_checks import check_files
from mask2former.data.datasets.coco_json import check_unique_ids, collector_paused
from mask2former.data.datasets.coco_labels import contiguous_ids
from mask2former.data.datasets.ytvis_json import read_ytvis, track_problem
from mask2former.structures import builtin_labels, coco_rle
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# T frames of a video

# list of a track, one entry per frame -> what COCO calls such an entry
_PER_FRAME = {"segmentations": "segmentation", "bboxes": "bbox", "areas": "area"}


class YtvisVideos(ObjectSource):
    """From a YouTube-VIS file."""

    def __call__(self) -> list[dict]:
        return load_ytvis_json(self.json_file, self.image_root, self.dataset_name)


def register_ytvis_instances(name: str, metadata: Mapping, json_file: str | Path, image_root: str | Path) -> None:
    """Register a data set in YouTube-VIS's form, as the published function of this name does.

    Args:
        name: of the data set, as DATASETS.TRAIN and DATASETS.TEST use it.
        metadata: more attributes of the data set; {} takes the classes from the file when it is first read.
        json_file: videos and tracks.
        image_root: folder of the frames; the file names in the JSON are relative to it.

    Raises:
        UserError: the name is taken.
    """
    register_source(YtvisVideos(str(json_file), str(image_root), name), metadata, "ytvis")


@collector_paused()
def load_ytvis_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict]:
    """The records of a YouTube-VIS file, in the order of its videos.

    Args:
        json_file: the file.
        image_root: folder that its file names are relative to.
        dataset_name: data set whose metadata numbers the classes, or gets the classes of the file where it has none.
            Without a name the category ids stay as they are.
        extra_annotation_keys: more keys of a track to keep with each of its objects.

    Returns:
        records with "file_names" [T], "video_id", "length" T, "height" and "width" (where the file states them), and
        "annotations": for each frame the objects in it, as `load_coco_json` gives them, each with the id of its track.
        A track that has no mask in a frame has no object there. A file without tracks (the published sets whose truth
        is kept by a server) gives records without "annotations".

    Raises:
        UserError: the file is not as it must be, a frame does not exist, the lists of a track are not as long as its
            video, or an object has an unknown category or a broken mask. In published data sets broken polygons are
            left out and counted instead.
    """
    file = read_ytvis(json_file)
    check_unique_ids(file.path, "annotation", [track for found in file.by_video.values() for track in found])
    id_map = None
    if dataset_name is not None:
        id_map = contiguous_ids(MetadataCatalog.get(dataset_name), file.path, file.categories, panoptic=False)
    reader = ObjectReader(file.path, id_map, builtin_labels(dataset_name or "") is not None, extra_annotation_keys)
    records, empty = [], 0
    for video in file.videos:
        record = _video_record(file.path, video, image_root)
        if file.has_tracks:
            tracks = file.by_video[video["id"]]
            record["annotations"], absent = _objects(file.path, record, tracks, reader)
            empty += absent
        records.append(record)
    check_files([name for r in records for name in r["file_names"]], f"frames of {file.path}", IMAGES_REMEDY)
    reader.report()
    if empty:
        logger.warning("%s: %d tracks have no mask in any frame and are left out", file.path, empty)
    return records


def _video_record(path: str, video: Mapping, image_root: str | Path) -> dict:
    """What a record says of the video itself; "height" and "width" only where the JSON file states both."""
    names = [os.path.join(image_root, name) for name in video["file_names"]]
    record = {"file_names": names, "video_id": video["id"], "length": len(names)}
    stated = video.get("length")
    if stated is not None and stated != len(names):
        raise UserError(
            f"{path}: video {video['id']!r} has the length {stated!r}, but {len(names)} file_names. Correct the "
            "length, or list all frames."
        )
    height, width = video.get("height"), video.get("width")
    if height is None or width is None:
        return record
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise UserError(
            f"{path}: video {video['id']!r} has the height {height!r} and width {width!r}; expected whole pixels above "
            "0. Correct them, or leave both out: they are then read from the first frame."
        )
    return {**record, "height": height, "width": width}


def _objects(
    path: str, record: Mapping, tracks: Sequence[Mapping], reader: ObjectReader
) -> tuple[list[list[dict]], int]:
    """For each frame the objects in it, and the number of tracks without any."""
    size = (record["height"], record["width"]) if "height" in record else None
    frames: list[list[dict]] = [[] for _ in record["file_names"]]
    empty = 0
    for track in tracks:
        if problem := track_problem(track, record["length"]):
            raise UserError(
                f"{path}: annotation {track['id']!r} of video {record['video_id']!r} {problem}. Export the track "
                "again: an entry for each frame, null where the object is not to be seen."
            )
        seen = 0
        for objects, file_name, raw in zip(frames, record["file_names"], frame_entries(track), strict=True):
            found = reader.read(raw, file_name, size) if raw.get("segmentation") else None
            if found:
                objects.append(_compressed(found))
                seen += 1
        empty += seen == 0
    return frames, empty


def _compressed(annotation: dict) -> dict:
    """The annotation with its RLE, if it has one, compressed: published files have lists, gigabytes as objects."""
    segmentation = annotation["segmentation"]
    if not isinstance(segmentation, dict):
        return annotation
    return {**annotation, "segmentation": coco_rle(segmentation, segmentation["size"])}


def frame_entries(track: Mapping) -> list[dict]:
    """A track as one COCO annotation per frame, with the track's id; without "segmentation" where it has no mask."""
    shared = {key: value for key, value in track.items() if key not in _PER_FRAME}
    entries = [dict(shared) for _ in track["segmentations"]]
    for key, name in _PER_FRAME.items():
        for entry, value in zip(entries, track.get(key) or ()):
            if value is not None:
                entry[name] = value
    return entries
