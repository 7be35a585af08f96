import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask2former.data import MetadataCatalog, labels_of, load_sem_seg, read_image, read_mask, register_custom


@pytest.fixture(scope="module")
def shapes(repo_dir):
    spec = importlib.util.spec_from_file_location("make_shapes", repo_dir / "datasets" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawn(shapes, tmp_path_factory):
    root = tmp_path_factory.mktemp("shapes") / "set"
    shapes.make(root, train=5, valid=2, size=96)
    return root


def _json(path):
    return json.loads(path.read_text())


def test_the_three_formats_say_the_same(shapes, drawn):
    ids = {c[1]: place for place, c in enumerate(shapes.CATEGORIES)}
    for split, count in (("train", 5), ("valid", 2)):
        records = load_sem_seg(drawn / split / "masks", drawn / split / "images")
        instances = _json(drawn / "annotations" / f"instances_{split}.json")
        panoptic = _json(drawn / "annotations" / f"panoptic_{split}.json")
        assert len(records) == len(instances["images"]) == len(panoptic["annotations"]) == count
        assert len({a["id"] for a in instances["annotations"]}) == len(instances["annotations"])
        for record, image, segments in zip(records, instances["images"], panoptic["annotations"], strict=True):
            sem_seg = read_mask(record["sem_seg_file_name"])
            assert read_image(record["file_name"]).shape == (96, 96, 3) == (image["height"], image["width"], 3)
            assert image["id"] == segments["image_id"] and image["file_name"][:5] == record["image_id"]
            rgb = read_image(drawn / f"panoptic_{split}" / segments["file_name"]).astype(int)
            segment_ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
            rebuilt, things = np.full_like(sem_seg, 255), []
            for segment in segments["segments_info"]:
                mask = segment_ids == segment["id"]
                rebuilt[mask] = ids[segment["category_id"]]
                assert segment["area"] == mask.sum() > 0 and segment["bbox"] == shapes._box(mask)
                if ids[segment["category_id"]] < shapes.THINGS:
                    things.append((segment["category_id"], mask.tobytes()))
            np.testing.assert_array_equal(rebuilt, sem_seg)
            found = []
            for annotation in (a for a in instances["annotations"] if a["image_id"] == image["id"]):
                mask = coco_mask.decode(annotation["segmentation"]).astype(bool)
                assert annotation["area"] == mask.sum() and annotation["bbox"] == shapes._box(mask)
                found.append((annotation["category_id"], mask.tobytes()))
            assert sorted(found) == sorted(things)


def test_categories_are_described(shapes, drawn):
    panoptic = _json(drawn / "annotations" / "panoptic_train.json")["categories"]
    assert [c["isthing"] for c in panoptic] == [1] * 5 + [0] * 3
    things = _json(drawn / "annotations" / "instances_train.json")["categories"]
    assert [c["name"] for c in things] == ["circle", "square", "triangle", "star", "ring"]
    register_custom("drawn", {"ROOT": str(drawn)})
    labels = labels_of(MetadataCatalog.get("drawn_valid"))
    assert labels.names == tuple(c[0] for c in shapes.CATEGORIES) and len(labels.colors) == 8


def test_drawing_is_deterministic_and_pictures_are_independent(shapes):
    first = [shapes.draw(0, 0, i, 64) for i in (3, 4)]
    again = [shapes.draw(0, 0, i, 64) for i in (4, 3)][::-1]
    for a, b in zip(first, again, strict=True):
        assert all(map(np.array_equal, a, b))
    assert not np.array_equal(first[0][0], first[1][0])
    assert not np.array_equal(first[0][0], shapes.draw(0, 1, 3, 64)[0])
    assert not np.array_equal(first[0][0], shapes.draw(1, 0, 3, 64)[0])


def test_things_overlap_and_all_classes_occur(shapes):
    pictures = [shapes.draw(0, 0, i, 64) for i in range(20)]
    assert set(np.unique([sem_seg for _, sem_seg, _ in pictures])) == set(range(8))
    for _, sem_seg, objects in pictures:
        assert np.array_equal(objects > 0, sem_seg < shapes.THINGS)
        assert 1 <= objects.max() <= 7 and set(np.unique(objects[objects > 0])) == set(range(1, objects.max() + 1))


def test_an_interrupted_run_leaves_nothing_behind(shapes, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        shapes.make(tmp_path / "set", train=1, valid=1)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_runs_wins(shapes, drawn, tmp_path, monkeypatch):
    write = shapes._write_split

    def slow(root, split, *args):
        write(root, split, *args)
        if split == "valid":  # another process finishes meanwhile
            (tmp_path / "set").mkdir()
            (tmp_path / "set" / "classes.json").write_text("[]")

    monkeypatch.setattr(shapes, "_write_split", slow)
    shapes.make(tmp_path / "set", train=1, valid=1, size=32)
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["classes.json"]
    before = sorted(drawn.iterdir())
    shapes.ensure(drawn)
    assert sorted(drawn.iterdir()) == before


def test_command_line(repo_dir, tmp_path):
    command = [sys.executable, str(repo_dir / "datasets" / "make_shapes.py"), "--output", str(tmp_path / "a")]
    command += ["--train", "2", "--valid", "1", "--size", "48", "--seed", "5"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert Image.open(tmp_path / "a" / "train" / "images" / "00001.jpg").size == (48, 48)
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 2 and second.stderr.startswith("error: ") and "exists already" in second.stderr
