"""Videos of moving shapes: deterministic, in YouTube-VIS's form, with things that hide, come and go."""

import json
import runpy
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask


@pytest.fixture
def shapes(script):
    return script("_moving_shapes")


def test_videos_are_deterministic_and_independent(shapes):
    first, again = (shapes.draw_video(0, 0, 3, 48) for _ in range(2))
    assert all(map(np.array_equal, first, again))
    for other in ((0, 0, 4), (0, 1, 3), (1, 0, 3)):
        assert not np.array_equal(first[0][0], shapes.draw_video(*other, 48)[0][0])


def test_things_move_hide_come_and_go(shapes):
    tracks, touching = [], 0
    for index in range(12):
        frames, objects, kinds = shapes.draw_video(0, 0, index, 64)
        assert frames.dtype == np.uint8 and frames.shape == (*objects.shape, 3) and objects.shape[1:] == (48, 64)
        assert shapes.FRAMES[0] <= len(frames) <= shapes.FRAMES[1] and 2 <= len(kinds) <= 5
        for number in range(1, len(kinds) + 1):
            tracks.append((objects == number).sum((1, 2)) >= shapes.SEEN)  # [T], whether it shows
        across = (objects[:, :, 1:] != objects[:, :, :-1]) & (objects[:, :, 1:] > 0) & (objects[:, :, :-1] > 0)
        touching += across.any((1, 2)).any()
    assert touching > 8  # videos in which one thing covers another
    assert sum(not track[0] and track.any() for track in tracks) > 3  # things that come in
    assert sum(not track[-1] and track.any() for track in tracks) > 3  # things that leave
    assert sum(track.all() for track in tracks) > 10  # and some that stay; of 45


def test_files_say_what_was_drawn(shapes, tmp_path):
    shapes.make(tmp_path / "set", train=2, valid=1, size=48)
    for split, count in (("train", 2), ("valid", 1)):
        content = json.loads((tmp_path / "set" / f"{split}.json").read_text())
        assert len(content["videos"]) == count and len(content["categories"]) == 5
        assert [track["id"] for track in content["annotations"]] == [*range(1, len(content["annotations"]) + 1)]
        for video in content["videos"]:
            assert (video["height"], video["width"], video["length"]) == (36, 48, len(video["file_names"]))
            assert all((tmp_path / "set" / split / "JPEGImages" / name).is_file() for name in video["file_names"])
        for track in content["annotations"]:
            lists = [track[key] for key in ("segmentations", "bboxes", "areas")]
            assert {len(values) for values in lists} == {content["videos"][track["video_id"] - 1]["length"]}
            for rle, box, area in zip(*lists, strict=True):
                assert (rle is None) == (box is None) == (area is None)
                assert rle is None or area == coco_mask.area(rle) >= shapes.SEEN
                assert rle is None or box == coco_mask.toBbox(rle).tolist()


def test_the_folder_appears_when_it_is_complete(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, "draw_video", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shapes.make(tmp_path / "set", train=1, valid=1)
    assert list(tmp_path.iterdir()) == []


def test_command_line(repo_dir, tmp_path):
    command = [
        sys.executable,
        str(repo_dir / "datasets" / "make_shapes.py"),
        "--video",
        "--output",
        str(tmp_path / "a"),
    ]
    command += ["--train", "1", "--valid", "1", "--size", "48"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0 and first.stdout.startswith("1 training and 1 validation videos in ")
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2 and "exists already" in second.stderr


def test_the_quickstart_draws_its_videos(repo_dir, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = shapes.make
    monkeypatch.setattr(shapes, "make", lambda root: make(root, train=1, valid=1, size=32))
    module = repo_dir / "configs" / "quickstart" / "prepare_moving_shapes.py"
    for _ in range(2):  # the second time they are there
        runpy.run_path(str(module))
    assert (tmp_path / "datasets" / "shapes_video" / "valid.json").is_file()
