"""Ground truth of video instances: from a YouTube-VIS file, or from the records of the videos."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from mask2former.data.datasets.ytvis import frame_entries
from mask2former.data.datasets.ytvis_json import YtvisFile, track_problem
from mask2former.evaluation.instance_truth import check_rle_size, has_mask
from mask2former.evaluation.video_tracks import VideoTracks, track_of_rles
from mask2former.structures import coco_rle
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

# G tracks, T frames, H W size of a frame


def tracks_of_record(record: Mapping, category_ids: Mapping[int, int], size: tuple[int, int]) -> VideoTracks:
    """The true tracks of a video, joined by the `id` of its frames' objects.

    Args:
        record: with `video_id`, `file_names` [T] and `annotations`, T lists of objects with `id`, `category_id`,
            `segmentation`, and perhaps `iscrowd` and `area`.
        category_ids: class number -> category id of the classes that count; tracks of others are left out.
        size: (H, W) of the frames.

    Raises:
        UserError: no ground truth, or masks of another size.
    """
    if record.get("annotations") is None:
        raise UserError(
            f"Video {record['video_id']!r} ({record['file_names'][0]} ...) has no annotations in its record, so it "
            "cannot be evaluated. Name a data set with ground truth in DATASETS.TEST."
        )
    length = len(record["file_names"])
    tracks: dict[Hashable, dict[int, dict]] = {}  # by id, by frame
    for t, objects in enumerate(record["annotations"]):
        for described in objects:
            if described["category_id"] in category_ids:
                entry = {**described, "category_id": category_ids[described["category_id"]]}
                tracks.setdefault(described["id"], {})[t] = entry
    entries = [[by_frame.get(t, {}) for t in range(length)] for by_frame in tracks.values()]
    return _video_tracks(record["video_id"], entries, size, length, "the record")


def tracks_of_file(
    file: YtvisFile, category_ids: Collection[int], videos: Mapping[Hashable, tuple[tuple[int, int], int]]
) -> list[VideoTracks]:
    """The true tracks of some videos of a YouTube-VIS file; a track without any mask is one that must be missed.

    Args:
        file: the file.
        category_ids: those that count, which the file must have.
        videos: ((H, W), T) by video id.

    Raises:
        UserError: the file does not have these videos or categories, or has tracks or masks of another length or size.
    """
    if unknown := [video_id for video_id in videos if video_id not in file.by_video]:
        raise UserError(
            f"{file.path} does not list the videos {some(unknown)} that were evaluated, but others such as "
            f"{some(list(file.by_video)[:3])}. Correct json_file where the data set is registered, or the video_id of "
            "its records."
        )
    if missing := set(category_ids) - {category["id"] for category in file.categories}:
        raise UserError(
            f"{file.path} has no category of the ids {some(sorted(missing))}, which classes of the data set have. "
            "Correct json_file, or thing_dataset_id_to_contiguous_id, where the data set is registered."
        )
    found = []
    for video_id, (size, length) in videos.items():
        tracks = [track for track in file.by_video[video_id] if track["category_id"] in category_ids]
        for track in tracks:
            if problem := track_problem(track, length):
                raise UserError(
                    f"{file.path}: annotation {track.get('id')!r} of video {video_id!r} {problem}. Correct json_file "
                    "where the data set is registered, or the annotation."
                )
        found.append(_video_tracks(video_id, [frame_entries(track) for track in tracks], size, length, file.path))
    return found


def _video_tracks(
    video_id: Hashable, tracks: Sequence[Sequence[dict]], size: tuple[int, int], length: int, source: str
) -> VideoTracks:
    """From tracks of T annotations each, without `segmentation` where the object is not in the frame."""
    masks = []
    for entries in tracks:
        rles = [coco_rle(entry["segmentation"], size) if has_mask(entry) else None for entry in entries]
        for t, rle in enumerate(rles):
            check_rle_size(
                rle, size, f"Video {video_id!r} of {source}: frame {t} of annotation {_first(entries)['id']!r}"
            )
        masks.append(track_of_rles(rles, size))
    columns = {
        "category_id": np.array([_first(entries)["category_id"] for entries in tracks], dtype=np.int64),
        "iscrowd": np.array([int(_first(entries).get("iscrowd") or 0) for entries in tracks], dtype=np.int64),
        # the published definition believes the areas that the file states
        "area": np.array(
            [mean_area([e.get("area") for e in own]) or mean_area(m.areas) for own, m in zip(tracks, masks)], float
        ),
    }
    return VideoTracks(video_id, size, length, masks, columns)


def mean_area(areas: Sequence[float | None] | np.ndarray) -> float:
    """Mean area of a track in pixels, over the frames where it has one; 0 without such frames."""
    known = [float(area) for area in areas if area]
    return sum(known) / max(len(known), 1)


def _first(entries: Sequence[dict]) -> dict:
    """What is known of the track itself, which every frame with the object says."""
    return next(entry for entry in entries if "category_id" in entry)
