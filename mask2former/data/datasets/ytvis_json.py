"""YouTube-VIS's JSON files: read, and checked as a whole before anything in them is used."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mask2former.data.datasets.coco_json import check_fields, check_unique_ids, is_list_of_objects, read_json
from mask2former.utils.errors import UserError


@dataclass(frozen=True)
class YtvisFile:
    """What a YouTube-VIS JSON file holds.

    path         the file
    videos       its videos, in order
    by_video     video id -> the tracks of that video, in order; every video has an entry
    categories   its categories by ascending id
    has_tracks   False for a file without annotations, as those of published sets whose truth a server keeps
    """

    path: str
    videos: list[dict]
    by_video: dict[Hashable, list[dict]]
    categories: list[dict]
    has_tracks: bool


def read_ytvis(path: str | Path) -> YtvisFile:
    """Read a YouTube-VIS file.

    Raises:
        UserError: no such file, broken JSON, a list missing, a video without frames or a category without name, two
            videos or two categories of one id, or a track of an unknown video.
    """
    path, content = str(path), read_json(path)
    found = f"an object with {sorted(content)[:10]}" if isinstance(content, dict) else f"a {type(content).__name__}"
    tracks = content.get("annotations") if isinstance(content, dict) else None
    needed = [content.get(key) for key in ("videos", "categories")] if isinstance(content, dict) else [None]
    if not all(map(is_list_of_objects, needed)) or not (tracks is None or is_list_of_objects(tracks)):
        raise UserError(
            f"{path} is not a YouTube-VIS file: expected an object with the lists of objects videos, categories and, "
            f"where there is ground truth, annotations; found {found}. Name another file."
        )
    videos, categories = needed
    check_fields(path, "video", videos, {"id": Hashable, "file_names": list})
    check_fields(path, "category", categories, {"id": int, "name": str})
    check_fields(path, "annotation", tracks or (), {"id": int})
    check_unique_ids(path, "video", videos)
    check_unique_ids(path, "category", categories)
    for video in videos:
        if not video["file_names"] or not all(isinstance(name, str) for name in video["file_names"]):
            raise UserError(
                f"{path}: video {video['id']!r} has the file_names {str(video['file_names'])[:60]}; expected the path "
                "of each frame, at least one. Correct it, or take the video out."
            )
    by_video = _grouped(path, videos, tracks or ())
    return YtvisFile(path, videos, by_video, sorted(categories, key=lambda c: c["id"]), tracks is not None)


def _grouped(path: str, videos: Sequence[dict], tracks: Sequence[dict]) -> dict[Hashable, list[dict]]:
    by_video: dict[Hashable, list[dict]] = {video["id"]: [] for video in videos}
    for track in tracks:
        video_id = track.get("video_id")
        if not isinstance(video_id, Hashable) or video_id not in by_video:
            raise UserError(
                f"{path}: annotation {track.get('id')!r} has the video_id {video_id!r}, which none of the "
                f"{len(videos)} videos has. Correct it, or take the annotation out."
            )
        by_video[video_id].append(track)
    return by_video


def track_problem(track: Mapping, length: int) -> str:
    """What is wrong with the lists of a track in a video of `length` frames, a verb first; empty when nothing is."""
    if not isinstance(track.get("segmentations"), list):
        return (
            f"has the segmentations {str(track.get('segmentations'))[:60]!r}; expected a list with an entry per frame"
        )
    for key in ("segmentations", "bboxes", "areas"):
        values = track.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or len(values) != length:
            found = f"{len(values)} {key}" if isinstance(values, list) else f"the {key} {str(values)[:60]!r}"
            return f"has {found} for {length} frames"
    return ""
