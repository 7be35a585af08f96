"""check_dataset on drawn videos, whole and deliberately broken."""

import json
import shutil

import pytest
from PIL import Image


@pytest.fixture
def root(videos, tmp_path):
    """A copy of the drawn videos that may be broken."""
    return shutil.copytree(videos.parent / "shapes", tmp_path / "shapes")


@pytest.fixture
def check(tool, videos, root, tmp_path, capsys):
    """Function that checks the copy; returns status, report and printed text."""

    def run():
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(videos.read_text().replace(str(videos.parent / "shapes"), str(root)))
        output = tmp_path / "checked"
        words = ["--config-file", str(recipe), "--output", str(output), "--workers", "1"]
        status = tool("check_dataset").main(words)
        return status, json.loads((output / "report.json").read_text()), capsys.readouterr().out

    return run


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _found(report, name="vid_train"):
    return {kind: [f["text"] for f in found] for kind, found in report["datasets"][name]["findings"].items()}


def test_whole_videos_have_no_errors(check, root, tmp_path):
    status, report, text = check()
    assert status == report["errors"] == 0 and report["datasets"]["vid_train"]["videos"] == 3
    tracks = json.loads((root / "train.json").read_text())["annotations"]
    for row, category in zip(report["datasets"]["vid_train"]["classes"]["instances"], (1, 2, 3, 5, 7), strict=True):
        own = [track for track in tracks if track["category_id"] == category]
        assert row["objects"] == len(own) and row["images"] == len({track["video_id"] for track in own})
    assert "vid_train: 3 videos" in text and "tracks" in text
    page = Image.open(tmp_path / "checked" / "samples_vid_train.png")
    assert page.width > 3 * 3 * 64  # three samples of three frames


def test_everything_wrong_is_found(check, root):
    def change(content):
        content["annotations"][0]["segmentations"].pop()
        content["annotations"][1]["category_id"] = 4
        size = {"size": [48, 48], "counts": [48 * 48]}
        content["annotations"][2]["segmentations"] = [size] * len(content["annotations"][2]["segmentations"])
        content["annotations"].append({**content["annotations"][3], "id": 900, "video_id": 77})

    _edit(root / "train.json", change)
    (root / "train" / "JPEGImages" / "001" / "00002.jpg").unlink()
    Image.new("RGB", (30, 20)).save(root / "train" / "JPEGImages" / "002" / "00004.jpg")
    status, report, _ = check()
    found = _found(report)
    assert status == 1 and {"data set", "track", "class id", "size", "record", "image"} <= found.keys()
    assert "segmentations for" in found["track"][0] and "77" in found["record"][0]
    assert any("20x30 pixels" in text for text in found["size"]) and any("48x48" in text for text in found["size"])
    assert "00002.jpg does not exist" in found["image"][0]


def test_a_set_that_is_not_registered_is_looked_through_all_the_same(check, root):
    def change(content):
        content["annotations"][0]["segmentations"].pop()
        content["categories"].pop()

    _edit(root / "train.json", change)
    status, report, _ = check()
    assert status == 1 and "different categories" in report["others"]["data set"][0]["text"]
    assert "track" in _found(report)


def test_the_same_video_in_both_splits(check, root):
    shutil.copytree(root / "train" / "JPEGImages" / "000", root / "valid" / "JPEGImages" / "000", dirs_exist_ok=True)
    status, report, _ = check()
    assert status == 1 and len(report["others"]["shared image"]) >= 20


def test_what_stands_still_is_no_repetition(check, root):
    frames = sorted((root / "train" / "JPEGImages" / "000").iterdir())
    shutil.copy(frames[0], frames[1])
    status, report, _ = check()
    assert status == 0 and "repeated image" not in _found(report)
