"""Tracks of a video as a JSON file, in the form of results for YouTube-VIS."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mask2former.inference.video_sink import make_folder, not_writable
from mask2former.structures import Track
from mask2former.structures.labels import LabelSet

# T frames


def write_tracks(path: Path, tracks: Sequence[Track], labels: LabelSet, length: int) -> int:
    """Write tracks, and return how many; those that are in none of the frames are left out.

    The file is a list with an entry per track: `video_id` 1, `score`, `category_id` (as in the data set's own files)
    and `segmentations`, a COCO RLE or null for each frame, as the YouTube-VIS server takes them; and `id`, the number
    in drawings and id maps, with `category`, the name of the class.

    Args:
        path: of the JSON file; its folder is made when absent.
        tracks: of one video.
        labels: names of the classes, and their ids in files.
        length: number of frames T that count, from the first.

    Raises:
        UserError: the file cannot be written.
    """
    seen = [track for track in tracks if any(track.masks.rle(t) for t in range(length))]
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{os.getpid()}")  # renamed when whole
    try:
        with beside.open("w") as file:
            for part in _parts(seen, labels, length):
                file.write(part)
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise not_writable(path, error) from error
    return len(seen)


def _parts(tracks: Sequence[Track], labels: LabelSet, length: int) -> Iterator[str]:
    """The file's text, mask by mask: those of a long video are never in memory together."""
    yield "["
    for number, track in enumerate(tracks):
        described = json.dumps(_described(track, labels))
        yield f'{", " if number else ""}{described[:-1]}, "segmentations": ['
        for t in range(length):
            yield f"{', ' if t else ''}{json.dumps(track.masks.rle(t))}"
        yield "]}"
    yield "]"


def _described(track: Track, labels: LabelSet) -> dict:
    """The entry of a track, but its masks."""
    return {
        "video_id": 1,
        "id": track.id,
        "score": round(track.score, 6),
        "category_id": labels.dataset_ids[track.category] if labels.dataset_ids else track.category,
        "category": labels.names[track.category],
    }
