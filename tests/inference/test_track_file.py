"""The JSON of tracks."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mask2former.inference.track_file import write_tracks
from mask2former.structures import Track, TrackMasks, rle_encode
from mask2former.structures.labels import LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("cat", "dog"), thing_ids=(0, 1), dataset_ids=(3, 9))


def track(number, category, score, frames, length=4):
    rles = {t: rle_encode(np.eye(4, 6, t, dtype=bool)) for t in frames}
    return Track(number, category, score, TrackMasks(rles, length, (4, 6)))


def test_entries_are_those_of_the_server_and_say_whose_they_are(tmp_path):
    path = tmp_path / "new" / "tracks.json"
    assert write_tracks(path, [track(5, 1, 0.9, (0, 1, 3)), track(2, 0, 0.5, (2,))], LABELS, length=4) == 2
    first, second = json.loads(path.read_text())
    assert {k: v for k, v in first.items() if k != "segmentations"} == {
        "video_id": 1,
        "id": 5,
        "score": 0.9,
        "category_id": 9,
        "category": "dog",
    }
    assert [rle is None for rle in first["segmentations"]] == [False, False, True, False]
    assert (coco_mask.decode(first["segmentations"][3]) == np.eye(4, 6, 3)).all()
    assert (second["id"], second["category_id"]) == (2, 3)
    assert [p.name for p in path.parent.iterdir()] == ["tracks.json"]


def test_only_finished_frames_count(tmp_path):
    path = tmp_path / "tracks.json"
    assert write_tracks(path, [track(1, 0, 0.9, (0, 3)), track(2, 0, 0.8, (2, 3))], LABELS, length=2) == 1
    (entry,) = json.loads(path.read_text())
    assert entry["id"] == 1
    assert len(entry["segmentations"]) == 2


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_tracks(tmp_path, [], LABELS, 0)
    assert list(tmp_path.iterdir()) == []
