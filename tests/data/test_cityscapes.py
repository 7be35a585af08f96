"""Cityscapes' folders become records of each task."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask2former.data import DatasetCatalog, register_builtin
from mask2former.data.datasets.cityscapes import instances_of, runs_by_id
from mask2former.utils.errors import UserError

STEMS = {"aachen": ["aachen_000000_000019", "aachen_000001_000019"], "zurich": ["zurich_000000_000019"]}
ALL_STEMS = [stem for stems in STEMS.values() for stem in stems]


@pytest.fixture
def root(tmp_path):
    """Three images of 8x16 pixels with all label files but the panoptic ones."""
    ids = np.full((8, 16), 7, np.int32)  # road
    ids[1:4, 2:6], ids[5:7, 2:6] = 26000, 26001  # two cars
    ids[1:4, 9:13], ids[5:7, 9:13] = 26, 1  # a group of cars, and what is not evaluated
    for city, stems in STEMS.items():
        images = tmp_path / "cityscapes" / "leftImg8bit" / "val" / city
        labels = tmp_path / "cityscapes" / "gtFine" / "val" / city
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for stem in stems:
            Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(images / f"{stem}_leftImg8bit.png")
            Image.fromarray(ids.astype(np.uint16)).save(labels / f"{stem}_gtFine_instanceIds.png")
            Image.fromarray(np.zeros((8, 16), np.uint8)).save(labels / f"{stem}_gtFine_labelTrainIds.png")
    register_builtin(tmp_path)
    return tmp_path / "cityscapes"


def test_semantic_records(root):
    records = DatasetCatalog.get("cityscapes_fine_sem_seg_val")
    assert [r["image_id"] for r in records] == ALL_STEMS
    path = root / "gtFine" / "val" / "zurich" / "zurich_000000_000019_gtFine_labelTrainIds.png"
    assert records[2]["sem_seg_file_name"] == str(path)
    assert records[0]["file_name"].endswith("leftImg8bit/val/aachen/aachen_000000_000019_leftImg8bit.png")


def test_instance_records(root):
    records = DatasetCatalog.get("cityscapes_fine_instance_seg_val")
    assert [a["id"] for r in records for a in r["annotations"]] == list(range(1, 10))
    group, first, second = records[1]["annotations"]
    assert [a["category_id"] for a in (group, first, second)] == [2, 2, 2]  # car
    assert [a["iscrowd"] for a in (group, first, second)] == [1, 0, 0]
    assert first["bbox"] == [2, 1, 4, 3] and first["area"] == 12 and first["bbox_mode"] == 1
    mask = coco_mask.decode(second["segmentation"])
    assert mask.sum() == 8 and mask[5:7, 2:6].all()


def test_panoptic_records(root, tmp_path):
    folder = root / "gtFine" / "cityscapes_panoptic_val"
    folder.mkdir()
    annotations = []
    for stem in ALL_STEMS:
        Image.fromarray(np.zeros((8, 16, 3), np.uint8)).save(folder / f"{stem}_gtFine_panoptic.png")
        segments = [{"id": 7, "category_id": 7, "iscrowd": 0}, {"id": 26000, "category_id": 26, "iscrowd": 0}]
        annotations.append({"image_id": stem, "file_name": f"{stem}_gtFine_panoptic.png", "segments_info": segments})
    # as cityscapesScripts names the images: without their city, and so as none is named
    images = [{"id": a["image_id"], "file_name": f"{a['image_id']}_gtFine_leftImg8bit.png"} for a in annotations]
    images = [{**image, "height": 8, "width": 16} for image in images]
    own_ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    categories = [{"id": i, "name": f"class {i}", "isthing": int(i > 23)} for i in own_ids]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps(content))
    records = DatasetCatalog.get("cityscapes_fine_panoptic_val")
    assert [r["image_id"] for r in records] == ALL_STEMS
    for record in records:
        assert [s["category_id"] for s in record["segments_info"]] == [0, 13]
        assert [s["isthing"] for s in record["segments_info"]] == [False, True]
        city = record["image_id"].split("_")[0]
        assert record["file_name"].endswith(f"val/{city}/{record['image_id']}_leftImg8bit.png")
        assert record["sem_seg_file_name"].endswith(f"val/{city}/{record['image_id']}_gtFine_labelTrainIds.png")


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("sem_seg", "labelTrainIds", "prepare_cityscapes.py` makes them"),
        ("instance_seg", "instanceIds", "gtFine_trainvaltest.zip"),
    ],
)
def test_missing_label_files(root, name, kind, message):
    (root / "gtFine" / "val" / "zurich" / f"zurich_000000_000019_gtFine_{kind}.png").unlink()
    with pytest.raises(UserError, match=f"1 of 3 label files .*zurich_000000_000019_gtFine_{kind}.png.*{message}"):
        DatasetCatalog.get(f"cityscapes_fine_{name}_val")


def test_empty_image_folder(root):
    for path in (root / "leftImg8bit").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="val/ holds no <city>/.*leftImg8bit.png.*leftImg8bit_trainvaltest.zip"):
        DatasetCatalog.get("cityscapes_fine_sem_seg_val")


def test_runs_are_those_of_each_mask():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 4, (7, 5)).astype(np.int32)
    ids[:, 2] = 3
    found = runs_by_id(ids)
    assert sorted(found) == [0, 1, 2, 3]
    for value, rle in found.items():
        assert np.array_equal(coco_mask.decode(rle).astype(bool), ids == value)


def test_instances_outside_the_eight_classes_are_no_objects(root):
    path = root / "gtFine" / "val" / "aachen" / "aachen_000000_000019_gtFine_instanceIds.png"
    Image.fromarray(np.array([[29000, 29, 7, 24001]], np.uint16)).save(path)  # caravans are not evaluated
    assert [(a["category_id"], a["area"]) for a in instances_of(path)] == [(0, 1)]
