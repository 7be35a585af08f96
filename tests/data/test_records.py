"""Records of any reader or user's function are completed, and what is wrong with them is found at the start."""

import logging
from enum import IntEnum

import numpy as np
import pytest
from PIL import Image

from mask2former.config import get_cfg
from mask2former.data import DatasetCatalog, MetadataCatalog, check_datasets
from mask2former.data.datasets import checks, records
from mask2former.data.datasets.build import checked_records
from mask2former.data.datasets.coco_panoptic import register_coco_panoptic
from mask2former.utils.errors import UserError

BoxMode = IntEnum("BoxMode", {"XYXY_ABS": 0, "XYWH_ABS": 1, "XYXY_REL": 2})  # as detectron2's
SQUARE = [[2, 3, 12, 3, 12, 8, 2, 8]]  # 10 x 5 pixels at (2, 3)


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.merge_from_list(["DATASETS.TRAIN", ["mine"], "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2])
    return cfg


def _register(found, **metadata):
    DatasetCatalog.register("mine", lambda: found)
    MetadataCatalog.get("mine").set(thing_classes=["a", "b"], evaluator_type="coco", **metadata)


def test_annotations_as_detectron2s_users_write_them(cfg, image):
    mask = np.zeros((20, 30), bool)
    mask[3:8, 2:12] = True
    objects = [
        {"bbox": [2, 3, 12, 8], "bbox_mode": BoxMode.XYXY_ABS, "segmentation": SQUARE, "category_id": 0},
        {"bbox": np.array([2, 3, 10, 5]), "bbox_mode": BoxMode.XYWH_ABS, "segmentation": SQUARE, "category_id": 1},
        {"segmentation": (np.array(SQUARE[0]),), "category_id": 1},
        {"segmentation": mask, "category_id": 0, "iscrowd": True},
        {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0},  # boxes alone train nothing
    ]
    _register([{"file_name": image, "height": 20, "width": 30, "annotations": objects}])
    found = checked_records(cfg, "mine", True)[0]["annotations"]
    assert [a["bbox"] for a in found] == [[2, 3, 10, 5]] * 4 and [type(a["bbox_mode"]) for a in found] == [int] * 4
    assert [a["area"] for a in found] == [50] * 4 and [a["iscrowd"] for a in found] == [0, 0, 0, 1]
    assert [a["id"] for a in found] == [1, 2, 3, 4] and [a["bbox_mode"] for a in found] == [1] * 4


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"segmentation": [[1, 2, 3, 4]]}, "An annotation of image .*a.png: a polygon has 4 numbers"),
        ({"segmentation": {"size": [30, 20], "counts": "x"}}, r"the RLE has the size \[30, 20\]"),
        ({"segmentation": np.zeros((3, 4), bool)}, r"the mask has the shape \(3, 4\), its image \(20, 30\)"),
        ({"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYXY_REL}, "has the bbox_mode .*XYXY_REL.*Convert the boxes"),
        ({"bbox": [0, 0, 1]}, r"a.png: the bbox is \[0, 0, 1\]; expected four finite numbers"),
        ({"iscrowd": "maybe"}, "a.png: the iscrowd is 'maybe'; expected 0 or 1"),
        ({"segmentation": {"size": [20, 30], "counts": "52"}}, "the RLE counts 7 pixels for 20x30"),
        ({"category_id": 2}, "has the category_id 2; expected 0 to 1"),
        ({"category_id": "b"}, "has the category_id 'b'"),
    ],
)
def test_broken_annotations(cfg, image, annotation, message):
    _register([{"file_name": image, "annotations": [{"segmentation": SQUARE, "category_id": 0, **annotation}]}])
    with pytest.raises(UserError, match=message):
        check_datasets(cfg)


def test_sizes_come_from_the_files_where_nothing_states_them(cfg, image):
    rle = {"size": [20, 31], "counts": [620]}
    _register([{"file_name": image, "annotations": []}])
    assert (checked_records(cfg, "mine", True)[0]["height"], checked_records(cfg, "mine", True)[0]["width"]) == (20, 30)
    DatasetCatalog.remove("mine")
    complete = {"id": 7, "bbox": [0, 0, 1, 1], "bbox_mode": 1, "iscrowd": 0, "area": 1, "category_id": 0}
    _register([{"file_name": image, "annotations": [{**complete, "segmentation": rle}]}])
    with pytest.raises(UserError, match=r"Annotation 7 of image .*a.png: the RLE has the size \[20, 31\]"):
        checked_records(cfg, "mine", True)


def test_stated_sizes_are_believed_beyond_the_sample(cfg, image, monkeypatch):
    """Large data sets start without opening every file."""
    opened = []
    monkeypatch.setattr(checks, "PIXELS_CHECKED", 2)
    monkeypatch.setattr(records, "read_size", lambda path: opened.append(path))
    monkeypatch.setattr(checks, "read_image", lambda path: opened.append(path) or np.zeros((20, 30, 3), np.uint8))
    _register([{"file_name": f"{i}.png", "height": 20, "width": 30, "annotations": []} for i in range(100)])
    assert len(checked_records(cfg, "mine", True)) == 100
    assert opened == ["0.png", "50.png"]


def test_few_images_are_read_where_they_are_large(cfg, monkeypatch):
    opened, size = [], (4000, 5000)
    large = np.broadcast_to(np.uint8(0), (*size, 3))
    monkeypatch.setattr(checks, "read_image", lambda path: opened.append(path) or large)
    _register([{"file_name": str(i), "height": size[0], "width": size[1], "annotations": []} for i in range(100)])
    checked_records(cfg, "mine", True)
    assert len(opened) == checks.PIXELS_READ // 20_000_000


@pytest.mark.parametrize(
    ("evaluator_type", "message"),
    [
        ("coco", "Record 0 of data set 'mine' has no 'annotations' .*evaluator_type is 'coco'"),
        ("cityscapes_sem_seg", "has no 'sem_seg_file_name'"),
        ("coco_panoptic_seg", "has no 'sem_seg_file_name' or 'annotations' or 'pan_seg_file_name'"),
        (None, "has no 'sem_seg_file_name' or 'annotations' or 'pan_seg_file_name'"),
    ],
)
def test_ground_truth_that_is_missing(cfg, image, evaluator_type, message):
    _register([{"file_name": image}])
    MetadataCatalog.get("mine").set(evaluator_type=evaluator_type)
    with pytest.raises(UserError, match=message):
        check_datasets(cfg)


def test_panoptic_maps_hold_only_what_is_listed(shapes_root, cfg, edit_json, monkeypatch):
    json_file = shapes_root / "annotations" / "panoptic_train.json"
    register_coco_panoptic("mine", {}, shapes_root / "train" / "images", shapes_root / "panoptic_train", json_file)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 8
    checked_records(cfg, "mine", True)
    gone = []
    edit_json(json_file, lambda c: gone.append(c["annotations"][1]["segments_info"].pop(0)["id"]))
    _reread()
    with pytest.raises(UserError, match=rf"00001.png has the segment ids {gone[0]}, which its segments_info does not"):
        checked_records(cfg, "mine", True)
    extra = {"id": 77, "category_id": 1, "area": 4, "bbox": [0, 0, 2, 2], "iscrowd": 0}
    edit_json(json_file, lambda c: c["annotations"][1]["segments_info"].append({**extra, "id": gone[0]}))
    edit_json(json_file, lambda c: c["annotations"][1]["segments_info"].append(extra))
    said = []
    monkeypatch.setattr(logging.getLogger(checks.__name__), "warning", lambda text, *args: said.append(text % args))
    checked_records(cfg, "mine", True)  # hidden by others, say: nothing to learn from, and no reason to refuse it
    assert len(said) == 1 and said[0].startswith("1 listed segments have no pixel") and said[0].endswith("00001.png")


def _reread():
    """Register once more, as another run does: one run checks its data once."""
    source = DatasetCatalog.pop("mine")
    DatasetCatalog.register("mine", lambda: source())


def test_a_panoptic_map_of_another_size(shapes_root, cfg):
    json_file = shapes_root / "annotations" / "panoptic_train.json"
    register_coco_panoptic("mine", {}, shapes_root / "train" / "images", shapes_root / "panoptic_train", json_file)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 8
    path = shapes_root / "panoptic_train" / "00002.png"
    Image.open(path).crop((0, 0, 40, 48)).save(path)
    with pytest.raises(UserError, match="00002.png has 48x40 pixels .*its image 48x48"):
        check_datasets(cfg)
    Image.open(path.parent.parent / "train" / "images" / "00002.jpg").crop((0, 0, 40, 48)).save(
        path.parent.parent / "train" / "images" / "00002.jpg"
    )
    with pytest.raises(UserError, match="00002.jpg is 48x40 .*its record says 48x48"):
        check_datasets(cfg)
