"""check_dataset on the drawn shapes, whole and deliberately broken."""

import importlib.util
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

TRAIN, VALID = 6, 3
FORMS = {"semantic": "shapes_train", "instance": "shapes_instance_train", "panoptic": "shapes_panoptic_train"}


@pytest.fixture(scope="module")
def drawn(repo_dir, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("make_shapes", repo_dir / "datasets" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("shapes") / "set"
    module.make(root, train=TRAIN, valid=VALID, size=64)
    return root


@pytest.fixture
def shapes(drawn, tmp_path):
    """A copy of the drawn set that may be broken."""
    return shutil.copytree(drawn, tmp_path / "set")


@pytest.fixture
def check(tool, tmp_path, repo_dir, capsys):
    """Function of a data set's root, a form of annotation and more flags; returns status, report and printed text."""

    def run(root, form, *flags):
        recipe = yaml.safe_load((repo_dir / "configs" / "quickstart" / "Base-Shapes.yaml").read_text())
        declared = recipe["DATASETS"]["CUSTOM"]
        for entry in declared.values():
            entry["ROOT"] = str(root)
        name = FORMS[form]
        path = tmp_path / "recipe.yaml"
        content = {
            "DATASETS": {"CUSTOM": declared, "TRAIN": [name], "TEST": [name.replace("train", "valid")]},
            "INPUT": {**recipe["INPUT"], "DATASET_MAPPER_NAME": f"mask_former_{form}"},
            "MODEL": {"MASK_FORMER": {"NUM_OBJECT_QUERIES": 20}},
        }
        path.write_text(yaml.safe_dump(content))
        output = tmp_path / "checked"
        status = tool("check_dataset").main(
            ["--config-file", str(path), "--output", str(output), "--workers", "1", *flags]
        )
        return status, json.loads((output / "report.json").read_text()), capsys.readouterr().out

    return run


def _found(report, name):
    return {kind: [f["text"] for f in found] for kind, found in report["datasets"][name]["findings"].items()}


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_data_set(form, drawn, check, tmp_path):
    status, report, printed = check(drawn, form, "--workers", "2")
    name = FORMS[form]
    assert status == 0 and report["errors"] == 0
    kind = {"instance": "instances"}.get(form, form)
    rows = report["datasets"][name]["classes"][kind]
    assert [row["name"] for row in rows] == ["circle", "square", "triangle", "star", "ring"] + (
        ["grass", "sand", "water"] if form != "instance" else []
    )
    assert sum(row["pixel_share"] for row in rows) == pytest.approx(1)
    masks = [np.array(Image.open(path)) for path in (drawn / "train" / "masks").glob("*.png")]
    for k, row in enumerate(rows):
        assert row["images"] == sum(k in mask for mask in masks) and row["objects"] >= row["images"]
    assert f"{name}: {TRAIN} images" in printed and "shapes" in printed
    page = Image.open(tmp_path / "checked" / f"samples_{name}.png")
    assert (
        min(page.size) > 128 and not (tmp_path / "checked" / f"samples_{name.replace('train', 'valid')}.png").exists()
    )


def test_semantic_mistakes_are_all_found(shapes, check):
    train = shapes / "train"
    (train / "images" / "00000.jpg").write_bytes((train / "images" / "00000.jpg").read_bytes()[:300])
    mask = np.array(Image.open(train / "masks" / "00001.png"))
    Image.fromarray(mask[:40]).save(train / "masks" / "00001.png")
    mask[:3, :4] = 9
    Image.fromarray(mask).save(train / "masks" / "00002.png")
    Image.fromarray(np.full_like(mask, 255)).save(train / "masks" / "00003.png")
    (train / "masks" / "00004.png").write_bytes(b"no picture")
    (train / "masks" / "00005.png").unlink()
    shutil.copy(shapes / "train" / "images" / "00003.jpg", shapes / "valid" / "images" / "00000.jpg")
    status, report, printed = check(shapes, "semantic")
    found = _found(report, "shapes_train")
    assert status == 1
    assert set(found) >= {"data set", "image", "size", "class id", "map", "no labels"}
    assert "masks/00005" in "".join(found["data set"]) or "00005.jpg" in "".join(found["data set"])
    assert found["class id"] == ["has the values 9 (12 pixels); expected 0 to 7 or 255"]
    assert found["size"] == ["has 40x64 pixels (height x width), its image 64x64"]
    assert sorted(found["no labels"]) == [
        "has no ground truth",
        "has nothing to learn: no object but crowds, no labelled pixel",
    ]
    assert "train/images/00003.jpg" in report["others"]["shared image"][0]["place"]
    assert "error   class id: 1" in printed


def test_instance_mistakes_are_all_found(shapes, check):
    def spoil(content):
        first, *others = content["annotations"]
        square = [10.0, 10, 20, 10, 20, 20, 10, 20]
        masks = [
            [[1, 1, 5, 5]],  # two points
            [[1, 1, 5, 5, 9, 9]],  # no area
            [[x * 30 for x in square]],  # of another size of image
            [[1, 1, 2, 1, 2, 2, 1, 2]],  # tiny
            [[-5, -5, -2, -5, -2, -2, -5, -2]],  # outside, but not by far
            {"size": [32, 64], "counts": [0, 2048]},  # of another size
            {"size": [64, 64], "counts": [0, 7]},  # too short
        ]
        for annotation, mask in zip(others, masks, strict=False):
            annotation["segmentation"] = mask
        assert len(others) > len(masks)
        others[-1]["category_id"] = 99
        content["annotations"].append(dict(first))  # its id twice

    _edit(shapes / "annotations" / "instances_train.json", spoil)
    status, report, _ = check(shapes, "instance")
    found = _found(report, "shapes_instance_train")
    assert status == 1
    counts = Counter({kind: len(texts) for kind, texts in found.items()})
    assert counts["polygon"] == 3 and counts["size"] == counts["RLE"] == counts["class id"] == 1
    assert counts["tiny annotation"] == counts["empty annotation"] == counts["duplicate id"] == 1
    assert found["class id"] == ["has the category 'id 99'; there are 5 classes"]
    assert len(found["data set"]) == 1  # what the reader says, once


def test_panoptic_mistakes_are_all_found(shapes, check):
    def spoil(content):
        listed = [annotation["segments_info"] for annotation in content["annotations"]]
        listed[0].pop()  # its pixels stay
        listed[1][0]["area"] += 5
        listed[2].append({**listed[2][0], "id": 123456})
        listed[3][0]["category_id"] = 99
        listed[4].append(dict(listed[4][0]))

    _edit(shapes / "annotations" / "panoptic_train.json", spoil)
    status, report, _ = check(shapes, "panoptic")
    found = _found(report, "shapes_panoptic_train")
    assert status == 1
    kinds = ("unlisted segment", "segment area", "empty annotation", "class id", "duplicate id")
    assert {kind: len(found[kind]) for kind in kinds} == dict.fromkeys(kinds, 1)


def test_warnings_alone_give_status_0(shapes, check):
    def rename(content):  # no triangle is left
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 3]

    _edit(shapes / "annotations" / "instances_train.json", rename)
    shutil.copy(shapes / "valid" / "images" / "00001.jpg", shapes / "valid" / "images" / "00002.jpg")
    status, report, _ = check(shapes, "instance", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "1")
    assert status == 0 and report["errors"] == 0
    found = _found(report, "shapes_instance_train")
    assert "'triangle' (2) is in no image" in found["unused class"] and found["many targets"]
    assert len(_found(report, "shapes_instance_valid")["repeated image"]) == 1


def test_json_that_cannot_be_read_does_not_hide_the_other_split(shapes, check):
    (shapes / "annotations" / "instances_train.json").write_text('{"images": [')
    mask = shapes / "valid" / "images" / "00001.jpg"
    mask.write_bytes(b"no picture")
    status, report, printed = check(shapes, "instance")
    assert status == 1 and "broken JSON" in printed
    assert len(_found(report, "shapes_instance_valid")["image"]) == 1


def test_data_without_anything_to_train_on_is_an_error(shapes, check):
    path = shapes / "annotations" / "instances_train.json"
    _edit(path, lambda content: content["annotations"].clear())
    status, report, _ = check(shapes, "instance")
    assert status == 1
    assert "nothing can be trained on" in _found(report, "shapes_instance_train")["data set"][0]
    _edit(path, lambda content: content["images"].clear())
    status, report, _ = check(shapes, "instance")
    assert status == 1
    assert _found(report, "shapes_instance_train")["data set"] == ["has no images with ground truth"]


def test_categories_without_a_name_do_not_end_the_check(shapes, check):
    path = shapes / "annotations" / "instances_train.json"
    _edit(path, lambda content: content["categories"][0].update(name=None))
    status, _, printed = check(shapes, "instance")
    assert status == 1 and "has the name None; expected text" in printed


def test_split_and_data_set_choose_what_is_checked(drawn, check):
    assert [*check(drawn, "semantic", "--split", "test")[1]["datasets"]] == ["shapes_valid"]
    _, report, _ = check(drawn, "semantic", "--dataset", "shapes_panoptic_valid", "shapes_valid")
    assert [*report["datasets"]] == ["shapes_panoptic_valid", "shapes_valid"]
    assert len(report["others"]["shared image"]) == VALID


def test_a_published_name_needs_no_recipe(tool, tmp_path, monkeypatch):
    folders = [tmp_path / "ADEChallengeData2016" / kind / "training" for kind in ("images", "annotations_detectron2")]
    for folder in folders:
        folder.mkdir(parents=True)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(folders[0] / "a.jpg")
    Image.fromarray(np.repeat(np.uint8([[2, 149, 255]]), 16, axis=1).repeat(32, axis=0)).save(folders[1] / "a.png")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    output = tmp_path / "checked"
    assert tool("check_dataset").main(["--dataset", "ade20k_sem_seg_train", "--output", str(output)]) == 0
    report = json.loads((output / "report.json").read_text())["datasets"]["ade20k_sem_seg_train"]
    rows = report["classes"]["semantic"]
    assert [k for k, row in enumerate(rows) if row["images"]] == [2, 149] and rows[2]["pixel_share"] == 0.5
    assert len(report["findings"]["unused class"]) == 148
    assert (output / "samples_ade20k_sem_seg_train.png").exists()
    assert tool("check_dataset").main(["--dataset", "ade20k_sem_seg_val", "--output", str(output)]) == 1


def test_mistakes_in_the_command_line(tool, tmp_path):
    run = tool("_common").run_main
    main = tool("check_dataset").main
    assert run(main, ["--dataset", "coco_2017_vol", "--output", str(tmp_path)]) == 2
    assert not (tmp_path / "report.json").exists()
    with pytest.raises(SystemExit):
        main([])


def test_what_a_reader_leaves_out_is_told(shapes, check):
    def strip(content):
        content["annotations"][0]["segmentation"] = []

    _edit(shapes / "annotations" / "instances_train.json", strip)
    status, report, _ = check(shapes, "instance")
    assert status == 0
    (warning,) = _found(report, "shapes_instance_train")["reader's warning"]
    assert "1 annotations without segmentation are left out" in warning
