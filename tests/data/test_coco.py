"""COCO files of instances and of panoptic segments become records; every mistake in them is one clear error."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.data.datasets import coco
from mask2former.data.datasets.coco import load_coco_json, register_coco_instances
from mask2former.data.datasets.coco_panoptic import (
    load_coco_panoptic_json,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from mask2former.utils.errors import UserError

# of datasets/make_shapes.py: category ids of the five things, of all classes
THINGS, CLASSES = (1, 2, 3, 5, 7), (1, 2, 3, 5, 7, 11, 12, 14)


@pytest.fixture
def instances(shapes_root):
    """(JSON file, image folder)"""
    return shapes_root / "annotations" / "instances_train.json", shapes_root / "train" / "images"


@pytest.fixture
def panoptic(shapes_root):
    """(JSON file, image folder, PNG folder)"""
    root = shapes_root
    return root / "annotations" / "panoptic_train.json", root / "train" / "images", root / "panoptic_train"


def test_instance_records_say_what_the_file_says(instances):
    register_coco_instances("mine", {}, *instances)
    records, content = DatasetCatalog.get("mine"), json.loads(instances[0].read_text())
    assert [r["image_id"] for r in records] == [image["id"] for image in content["images"]]
    found = {a["id"]: a for r in records for a in r["annotations"]}
    assert list(found) == [a["id"] for a in content["annotations"]]
    for a in content["annotations"]:
        kept = {key: a[key] for key in ("id", "bbox", "iscrowd", "area", "segmentation")}
        assert found[a["id"]] == {**kept, "bbox_mode": 1, "category_id": THINGS.index(a["category_id"])}
    assert all((r["height"], r["width"]) == (48, 48) for r in records)


def test_reading_names_the_classes(instances):
    register_coco_instances("mine", {"remark": "ours"}, *instances)
    metadata = MetadataCatalog.get("mine")
    labels = labels_of(metadata)  # reads the file
    assert labels.names == ("circle", "square", "triangle", "star", "ring") and labels.dataset_ids == THINGS
    assert metadata.thing_classes == [*labels.names] and metadata.remark == "ours"
    assert metadata.thing_dataset_id_to_contiguous_id == {own: i for i, own in enumerate(THINGS)}
    assert metadata.evaluator_type == "coco" and metadata.json_file == str(instances[0])


def test_without_a_name_the_ids_stay(instances):
    annotation = load_coco_json(*instances, extra_annotation_keys=["image_id"])[0]["annotations"][0]
    assert annotation["category_id"] in THINGS and annotation["image_id"] == 1


def test_equal_settings_are_equal_sources(instances):
    register_coco_instances("mine", {}, *instances)
    register_coco_instances("mine", {}, *instances)
    with pytest.raises(UserError, match="taken already"):
        register_coco_instances("mine", {}, instances[0], "elsewhere")


def test_what_metadata_says_goes_before_the_file(instances):
    numbering = {own: 4 - i for i, own in enumerate(THINGS)}
    names = ["ring", "star", "triangle", "square", "circle"]
    register_coco_instances(
        "mine", {"thing_classes": names, "thing_dataset_id_to_contiguous_id": numbering}, *instances
    )
    first, raw = DatasetCatalog.get("mine")[0]["annotations"][0], json.loads(instances[0].read_text())["annotations"][0]
    assert first["category_id"] == numbering[raw["category_id"]]
    register_coco_instances("other", {"thing_classes": ["circle", "box"]}, *instances)
    with pytest.raises(UserError, match=r"'other' lists other thing_classes .*only in the first: \['box'\].*'square'"):
        DatasetCatalog.get("other")


def test_panoptic_records_say_what_the_files_say(panoptic, shapes_root):
    register_coco_panoptic("mine", {}, panoptic[1], panoptic[2], panoptic[0])
    records, content = DatasetCatalog.get("mine"), json.loads(panoptic[0].read_text())
    for record, annotation in zip(records, content["annotations"], strict=True):
        rgb = np.asarray(Image.open(record["pan_seg_file_name"])).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
        sem_seg = np.asarray(Image.open(shapes_root / "train" / "masks" / f"{record['image_id'] - 1:05d}.png"))
        assert len(record["segments_info"]) == len(annotation["segments_info"])
        for segment in record["segments_info"]:
            inside = ids == segment["id"]
            assert inside.sum() == segment["area"] and (sem_seg[inside] == segment["category_id"]).all()
            assert segment["isthing"] is (segment["category_id"] < 5) and segment["iscrowd"] == 0
    labels = labels_of(MetadataCatalog.get("mine"))
    assert labels.thing_ids == (0, 1, 2, 3, 4) and labels.dataset_ids == CLASSES and labels.colors[0] == (214, 39, 40)


def test_panoptic_images_under_the_stem_of_the_png(panoptic, edit_json):
    """Some tools write the name of the PNG there."""
    edit_json(panoptic[0], lambda c: [image.update(file_name=f"{image['id']}.tif") for image in c["images"]])
    names = [record["file_name"] for record in load_coco_panoptic_json(*panoptic)]
    assert names == [str(panoptic[1] / f"{i:05d}.jpg") for i in range(4)]


def test_separated_records_have_objects_and_maps(instances, panoptic, shapes_root):
    masks = shapes_root / "train" / "masks"
    register_coco_panoptic_separated("mine", {}, panoptic[1], panoptic[2], panoptic[0], masks, instances[0])
    for record in DatasetCatalog.get("mine_separated"):
        assert record["annotations"] and record["sem_seg_file_name"] == str(masks / f"{record['image_id'] - 1:05d}.png")
    assert len(DatasetCatalog.get("mine_stuffonly")) == 4
    assert MetadataCatalog.get("mine_separated").evaluator_type == "coco_panoptic_seg"
    assert MetadataCatalog.get("mine_stuffonly").evaluator_type == "sem_seg"


def test_missing_boxes_and_areas_are_measured(instances, edit_json):
    raw = json.loads(instances[0].read_text())["annotations"]
    edit_json(instances[0], lambda c: [(a.pop("bbox"), a.pop("area")) for a in c["annotations"]])
    found = [a for record in load_coco_json(*instances) for a in record["annotations"]]
    assert [a["area"] for a in found] == [a["area"] for a in raw]
    assert [a["bbox"] for a in found] == [a["bbox"] for a in raw]


def test_objects_without_mask_are_left_out_and_counted(instances, edit_json, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger(coco.__name__), "warning", lambda text, *args: said.append(text % args))
    edit_json(
        instances[0], lambda c: (c["annotations"][0].pop("segmentation"), c["annotations"][1].update(segmentation=[]))
    )
    count = sum(len(record["annotations"]) for record in load_coco_json(*instances))
    assert count == len(json.loads(instances[0].read_text())["annotations"]) - 2
    assert len(said) == 1 and "2 annotations without segmentation" in said[0]


def test_a_test_set_has_no_annotations(instances, edit_json):
    path = instances[0].with_name("image_info_test.json")
    instances[0].rename(path)
    edit_json(path, lambda c: c.pop("annotations"))
    assert [record["annotations"] for record in load_coco_json(path, instances[1])] == [[]] * 4


def _first(key, **values):
    return lambda content: content[key][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("annotations"), r"is not a COCO file: .*found an object with \['categories', 'images'\]"),
        (lambda c: c.update(images=3), "is not a COCO file"),
        (lambda c: c["images"].append(c["images"][0]), r"several image entries of one id: 1 \(2 times\)"),
        (lambda c: c["categories"].append({"id": 5, "name": "box"}), r"several category entries of one id: 5"),
        (lambda c: c["categories"].append({"id": 6, "name": "ring"}), r"several categories named ring"),
        (
            lambda c: c["annotations"].append(c["annotations"][2]),
            "several annotation entries of one id: 3",
        ),
        (lambda c: c["annotations"][0].pop("id"), r"annotation 0 .*has no id"),
        (lambda c: c["images"][1].pop("file_name"), r"image 1 .*has the file_name None"),
        (_first("images", height=0), r"image 1 \(.*00000.jpg\) has the height 0 and width 48"),
        (_first("annotations", image_id=99), r"annotation 1 has the image_id 99, which none of the 4 images has"),
        (_first("annotations", category_id=[1]), r"annotation 1 of image .*jpg has the category_id \[1\]"),
        (_first("annotations", id=[]), r"an id of annotation entries is \[\]; expected a number or text"),
        (_first("annotations", iscrowd="no"), "annotation 1 of image .*jpg: the iscrowd is 'no'; expected 0 or 1"),
        (_first("annotations", bbox=[1, 2, 3]), r"the bbox is \[1, 2, 3\]; expected four finite numbers"),
        (_first("annotations", area="12"), "the area is '12'; expected a finite number"),
        (_first("annotations", category_id=4), r"annotation 1 of image .*jpg has the category_id 4; .*1; 2; 3; 5; 7"),
        (
            _first("annotations", segmentation=[[1, 2, 3, 4]]),
            "annotation 1 of image .*00000.jpg: .* 4 numbers; .*three",
        ),
        (_first("annotations", segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon has 7 numbers"),
        (_first("annotations", segmentation=[1, 2, 3, 4, 5, 6]), "a polygon is 1; expected a list of polygons"),
        (_first("annotations", segmentation=[[1, 2, 3, 4, 5, None]]), "something else than finite numbers"),
        (_first("annotations", segmentation=[[1, 2, 1e9, 4, 5, 6]]), r"reaches from 1 to 1e\+09; no image"),
        (_first("annotations", segmentation=[[1, 2, 10**400, 4, 5, 6]]), "something else than finite numbers"),
        (_first("annotations", segmentation={"size": None, "counts": "0"}), r"has the size None .*image \[48, 48\]"),
        (_first("annotations", segmentation={"size": [48, 48], "counts": ["a"]}), "counts that are no numbers"),
        (_first("annotations", segmentation={"size": [48, 48], "counts": [-1, 2305]}), "negative counts"),
        (_first("annotations", segmentation={"size": [48, 48], "counts": "no RLE ~"}), "counts 0 pixels for 48x48"),
        (_first("annotations", segmentation={"size": [48, 48], "counts": "52"}), "counts 7 pixels for 48x48"),
        (
            _first("annotations", segmentation={"size": [40, 48], "counts": "0"}),
            r"size \[40, 48\].*image \[48, 48\]",
        ),
        (_first("annotations", segmentation={"size": [48, 48], "counts": [9]}), "counts 9 pixels for 48x48"),
        (_first("annotations", segmentation={"counts": [9]}), "expected polygons, or an RLE"),
        (_first("images", file_name="gone.jpg"), r"1 of 4 images of .* do not exist: .*gone.jpg.*image_root.*IMAGES"),
    ],
)
def test_mistakes_in_instance_files(instances, edit_json, change, message):
    edit_json(instances[0], change)
    register_coco_instances("mine", {}, *instances)
    with pytest.raises(UserError, match=message) as caught:
        DatasetCatalog.get("mine")
    assert str(instances[0]) in str(caught.value)


def _segment(**values):
    return lambda content: content["annotations"][0]["segments_info"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_segment(category_id=4), r"segment \d+ of 00000.png has the category_id 4; .*1; 2; 3; 5; 7; 11; 12; 14"),
        (_segment(category_id=[1]), r"has the category_id \[1\]"),
        (_segment(iscrowd="no"), "of 00000.png has the iscrowd 'no'; expected 0 or 1"),
        (_segment(id=[1]), r"an id of segment entries is \[1\]"),
        (lambda c: c["annotations"][0].update(segments_info=[None]), r"segments_info \(a list of objects\)"),
        (_segment(id=0), "a segment of 00000.png has the id 0; expected 1 to 16777215"),
        (_segment(id=1 << 24), "has the id 16777216"),
        (lambda c: c["annotations"].append(c["annotations"][0]), "image 1 has 2 annotations"),
        (lambda c: c["annotations"][0].pop("segments_info"), "has file_name .a PNG. and segments_info"),
        (lambda c: c["categories"][0].pop("isthing"), r"category 1 \(circle\) has the isthing None"),
        (_first("annotations", file_name="gone.png"), r"1 of 4 panoptic PNG files .*gone.png.*panoptic_root.*PANOPTIC"),
        (
            lambda c: c["annotations"][0]["segments_info"].append(c["annotations"][0]["segments_info"][0]),
            "segments of 00000.png has several segment entries of one id",
        ),
    ],
)
def test_mistakes_in_panoptic_files(panoptic, edit_json, change, message):
    edit_json(panoptic[0], change)
    with pytest.raises(UserError, match=message) as caught:
        load_coco_panoptic_json(*panoptic)
    assert str(panoptic[0]) in str(caught.value)


def test_an_instance_file_is_no_panoptic_one(instances, panoptic):
    with pytest.raises(UserError, match="has the isthing None.*A file of instances is no panoptic file"):
        load_coco_panoptic_json(instances[0], *panoptic[1:])


def test_broken_and_missing_files(instances, tmp_path):
    text = instances[0].read_text()
    instances[0].write_text(text[:500] + "\n" + text[500:-30])
    with pytest.raises(UserError, match=r"instances_train.json is broken JSON: .* at line 2, column \d+.*cut off"):
        load_coco_json(*instances)
    with pytest.raises(UserError, match="nowhere.json does not exist"):
        load_coco_json(tmp_path / "nowhere.json", tmp_path)
    instances[0].write_text("[" * 100000)
    with pytest.raises(UserError, match="cannot be read .*recursion"):
        load_coco_json(*instances)
    instances[0].write_text(text)
    with pytest.raises(UserError, match="4 of 4 images .* no such folder: .*nowhere"):
        load_coco_json(instances[0], tmp_path / "nowhere")


def test_published_files_keep_their_categories(instances, edit_json, monkeypatch):
    """A published name has its table's categories; its broken polygons are counted instead of refused."""
    names = {1: "person", 2: "bicycle", 3: "car"}
    fields = {"thing_dataset_id_to_contiguous_id": {1: 0, 2: 1, 3: 2}, "thing_classes": [*names.values()]}
    register_coco_instances("coco_2017_val", fields, *instances)

    def with_categories(pairs):
        def change(content):
            content["categories"] = [{"id": i, "name": name} for i, name in pairs]
            content["annotations"] = [a for a in content["annotations"] if a["category_id"] <= 3]

        return change

    for pairs, message in (
        ([(1, "person"), (2, "bicycle")], r"lacks the categories 3 \(car\).*DATASETS.CUSTOM"),
        ([(1, "person"), (2, "car"), (3, "bicycle")], "has moved categories: 2 is 'car'; 3 is 'bicycle'"),
    ):
        edit_json(instances[0], with_categories(pairs))
        with pytest.raises(UserError, match=message):
            DatasetCatalog.get("coco_2017_val")
    edit_json(instances[0], with_categories([*names.items(), (9, "unused")]))
    count = sum(len(record["annotations"]) for record in DatasetCatalog.get("coco_2017_val"))
    edit_json(instances[0], lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4], [0, 0, 9, 0, 9, 9]]))
    edit_json(instances[0], lambda c: c["annotations"][1].update(segmentation=[[1, 2, 3, 4]]))
    records = DatasetCatalog.get("coco_2017_val")
    assert sum(len(record["annotations"]) for record in records) == count - 1
    assert records[0]["annotations"][0]["segmentation"] == [[0, 0, 9, 0, 9, 9]]


def test_real_coco_files_load(shared_dir):
    root = shared_dir / "data" / "coco_tiny"
    register_coco_instances("tiny", {}, root / "annotations" / "instances_val2017.json", root / "val2017")
    records = DatasetCatalog.get("tiny")
    assert len(records) == 80 and labels_of(MetadataCatalog.get("tiny")).num_classes == 80
    crowd = [(a, r) for r in records for a in r["annotations"] if a["iscrowd"]]
    assert all(a["segmentation"]["size"] == [r["height"], r["width"]] for a, r in crowd) and crowd
    shapes = [a["segmentation"] for r in records for a in r["annotations"] if not a["iscrowd"]]
    assert all(coco_mask.frPyObjects(shape, 640, 640) for shape in shapes)


def test_real_panoptic_files_load(shared_dir):
    root = shared_dir / "data" / "panoptic_sample"
    folders = root / "input_images", root / "panoptic_examples"
    records = load_coco_panoptic_json(root / "panoptic_examples.json", *folders)
    assert [r["image_id"] for r in records] == [142238, 439180]
    assert max(s["category_id"] for r in records for s in r["segments_info"]) < 133
