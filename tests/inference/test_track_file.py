"""The JSON of tracks."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mask2former.inference.track_file import write_tracks
from mask2former.structures import RleSpool, SpooledRles, Track, TrackMasks, rle_encode
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


def test_tracks_from_a_spool_give_the_same_file(tmp_path):
    spool, spooled, plain = RleSpool(), [], [track(5, 1, 0.9, (0, 1, 3)), track(2, 0, 0.5, (2,)), track(3, 0, 0.4, ())]
    for one in plain:
        newest = None
        for t in range(4):
            if one.masks.rle(t):
                newest = spool.append(one.masks.rle(t), t, newest)
        spooled.append(replace(one, masks=TrackMasks(SpooledRles(spool, newest, (4, 6)), 4, (4, 6))))
    assert write_tracks(tmp_path / "a.json", plain, LABELS, 4) == write_tracks(tmp_path / "b.json", spooled, LABELS, 4)
    assert (tmp_path / "a.json").read_text() == (tmp_path / "b.json").read_text()


def test_memory_does_not_grow_with_the_length(tmp_path):
    spool, newest, random = RleSpool(), None, np.random.default_rng(0)
    for t in range(1000):
        newest = spool.append(rle_encode(random.random((48, 64)) < 0.5), t, newest)
    peaks = []
    for length in (100, 100, 1000):  # the first for what is made once
        one = Track(1, 0, 0.9, TrackMasks(SpooledRles(spool, newest, (48, 64)), length, (48, 64)))
        tracemalloc.start()
        write_tracks(tmp_path / "tracks.json", [one], LABELS, length)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (tmp_path / "tracks.json").stat().st_size > 1_500_000
    assert peaks[2] < 1.1 * peaks[1]


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_tracks(tmp_path, [], LABELS, 0)
    assert list(tmp_path.iterdir()) == []
