"""Records of videos, and their frames as records of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mask2former.utils.errors import UserError

# T frames of a video


def is_video(record: Mapping) -> bool:
    """Whether a record is of a video, not of an image."""
    return "file_names" in record


def noun_of(records: Sequence[Mapping]) -> str:
    """What messages call them: "images", "videos" or "images and videos"."""
    kinds = {is_video(record) for record in records}
    return " and ".join(noun for of_videos, noun in ((False, "images"), (True, "videos")) if of_videos in kinds)


def frame_record(record: Mapping, t: int) -> dict:
    """Frame `t` of a video's record as the record of an image, with what the video's says of it."""
    shared = {key: record[key] for key in ("video_id", "height", "width") if key in record}
    truth = {"annotations": record["annotations"][t]} if "annotations" in record else {}
    return {"file_name": record["file_names"][t], **shared, **truth}


def frame_records(record: Mapping) -> list[dict]:
    """A record as records of images: one for each frame of a video, or an image's own."""
    return [frame_record(record, t) for t in range(len(record["file_names"]))] if is_video(record) else [dict(record)]


def objects_of(record: Mapping) -> list[dict]:
    """All "annotations" of a record; those of a video from frame to frame, so that each comes once per frame."""
    annotations = record["annotations"]
    return [annotation for frame in annotations for annotation in frame] if is_video(record) else annotations


def check_video(name: str, position: int, record: Mapping) -> None:
    """Raise UserError unless a video's record has frames, lists as long as the video, and objects with a track's id.

    Args:
        name: of the data set.
        position: of the record in it.
        record: as its function gives it.
    """
    names, length = record["file_names"], record.get("length")
    place = f"Record {position} of data set {name!r}"
    if not isinstance(names, (list, tuple)) or not names:
        raise UserError(f"{place} has the file_names {names!r}; expected the path of each frame, at least one.")
    if length is not None and length != len(names):
        raise UserError(f"{place} has the length {length!r}, but {len(names)} file_names. Correct one of them.")
    if "annotations" not in record:
        return
    frames = record["annotations"]
    if not isinstance(frames, (list, tuple)) or len(frames) != len(names):
        found = len(frames) if isinstance(frames, (list, tuple)) else type(frames).__name__
        raise UserError(
            f"{place} has annotations for {found} frames, but {len(names)} file_names. Give a list of objects for each "
            "frame, empty where there is none."
        )
    for file_name, objects in zip(names, frames):
        wrong = [annotation.get("id") for annotation in objects if not isinstance(annotation.get("id"), int)]
        if wrong:
            raise UserError(
                f"{place}: an object of frame {file_name} has the id {wrong[0]!r}; expected the whole number of its "
                "track, the same in all frames."
            )
