"""Published data sets: their metadata is the published one, and their files are asked for by the script's name."""

import json
import os

import pytest

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of, register_builtin
from mask2former.structures import builtin_labels
from mask2former.structures.labels import read_table
from mask2former.utils.errors import UserError


def test_metadata_is_the_published_one(shared_dir):
    register_builtin("datasets")
    published = json.loads((shared_dir / "reference" / "datasets.json").read_text())
    for name, fields in published.items():
        for key, value in fields.items():
            if key.endswith("_dataset_id_to_contiguous_id"):
                fields[key] = {int(own): i for own, i in value.items()}  # JSON has text for keys
        assert MetadataCatalog.get(name).as_dict() == fields, name
        assert name in DatasetCatalog


def test_label_tables_are_consistent():
    names = {entry["labels"] for entry in read_table("datasets").values()}
    for table in map(read_table, names):
        count, ids = len(table["names"]), table.get("thing_ids", [])
        assert len(table.get("colors", table["names"])) == count
        assert len(set(table.get("dataset_ids", range(count)))) == count
        assert ids == sorted(set(ids)) and all(0 <= i < count for i in ids)
        assert not 0 <= table["ignore_label"] < count


def test_paths_lie_below_the_root(tmp_path):
    register_builtin(tmp_path / "one")
    register_builtin(tmp_path / "two")
    for name in read_table("datasets"):
        for key, value in MetadataCatalog.get(name).as_dict().items():
            if key.endswith(("_root", "_json", "_dir", "_file")) and value is not None:
                assert value.startswith(str(tmp_path / "two") + os.sep), (name, key)
    assert str(tmp_path / "two") in DatasetCatalog.source("coco_2017_val").reader.json_file


@pytest.mark.parametrize(
    ("name", "classes", "things"),
    [
        ("coco_2017_train", 80, range(80)),
        ("coco_2017_train_panoptic", 133, range(80)),
        ("coco_2017_val_panoptic_with_sem_seg", 133, range(80)),
        ("coco_2017_train_stuff_10k_sem_seg", 171, ()),
        ("ade20k_sem_seg_val", 150, None),
        ("ade20k_panoptic_val", 150, None),
        ("ade20k_instance_val", 100, range(100)),
        ("ade20k_full_sem_seg_val", 847, ()),
        ("cityscapes_fine_instance_seg_val", 8, range(8)),
        ("cityscapes_fine_sem_seg_val", 19, range(11, 19)),
        ("cityscapes_fine_panoptic_val", 19, range(11, 19)),
        ("mapillary_vistas_sem_seg_val", 65, None),
        ("mapillary_vistas_panoptic_val", 65, None),
    ],
)
def test_labels_are_the_models_classes(tmp_path, name, classes, things):
    register_builtin(tmp_path)
    labels = labels_of(MetadataCatalog.get(name))
    assert labels == builtin_labels(name) and labels.num_classes == classes
    counts = {"ade20k": 100, "mapillary": 37}
    if things is None:
        assert len(labels.thing_ids) == counts[name.split("_")[0]]
    else:
        assert labels.thing_ids == tuple(things)


@pytest.mark.parametrize("name", [*read_table("datasets")])
def test_training_and_validation_have_the_same_labels(tmp_path, name):
    register_builtin(tmp_path)
    labels = labels_of(MetadataCatalog.get(name))
    assert labels == builtin_labels(name)
    for other in (name.replace("_train", "_val"), f"{name.replace('_train', '_val')}_with_sem_seg"):
        if other in MetadataCatalog:
            assert labels_of(MetadataCatalog.get(other)) == labels


@pytest.mark.parametrize(
    ("name", "made", "script"),
    [
        ("ade20k_sem_seg_train", ["annotations_detectron2/training"], "prepare_ade20k_sem_seg.py"),
        ("ade20k_full_sem_seg_val", ["annotations_detectron2/validation"], "prepare_ade20k_full_sem_seg.py"),
        ("ade20k_instance_train", ["ade20k_instance_train.json"], "prepare_ade20k_ins_seg.py"),
        ("ade20k_panoptic_val", ["ade20k_panoptic_val", "ade20k_panoptic_val.json"], "prepare_ade20k_pan_seg.py"),
        (
            "coco_2017_val_panoptic_with_sem_seg",
            ["panoptic_semseg_val2017"],
            "prepare_coco_semantic_annos_from_panoptic_annos.py",
        ),
        ("coco_2017_train_panoptic_stuffonly", ["panoptic_stuff_train2017"], "prepare_panoptic_fpn.py"),
        ("coco_2017_train_stuff_10k_sem_seg", ["annotations_detectron2/train"], "prepare_coco_stuff_10k_sem_seg.py"),
        ("cityscapes_fine_panoptic_train", ["gtFine/cityscapes_panoptic_train"], "prepare_cityscapes.py"),
    ],
)
def test_missing_files_name_the_script_that_makes_them(tmp_path, repo_dir, name, made, script):
    register_builtin(tmp_path)
    with pytest.raises(UserError) as caught:
        DatasetCatalog.get(name)
    message = str(caught.value)
    for path in made:
        assert f"{path} (made by `python datasets/{script}`)" in message
    assert "part of the download" in message or "full" in name or "10k" in name
    assert str(tmp_path) in message and "$DETECTRON2_DATASETS" in message


def test_scripts_exist(repo_dir):
    scripts = {script for entry in read_table("datasets").values() for script in entry.get("made_by", {}).values()}
    assert len(scripts) == 8 and all((repo_dir / "datasets" / script).is_file() for script in scripts)


def test_published_names_are_known_before_they_are_registered():
    DatasetCatalog.clear()
    with pytest.raises(UserError, match="class names of data set 'ytvis_2019_train' are known, but no reader"):
        DatasetCatalog.get("ytvis_2019_train")


def test_a_users_own_data_set_keeps_its_name(tmp_path):
    DatasetCatalog.register("ade20k_sem_seg_val", lambda: [{"file_name": "mine.png"}])
    MetadataCatalog.get("ade20k_sem_seg_val").set(stuff_classes=["only"])
    register_builtin(tmp_path)
    assert DatasetCatalog.get("ade20k_sem_seg_val") == [{"file_name": "mine.png"}]
    metadata = MetadataCatalog.get("ade20k_sem_seg_val")
    assert metadata.stuff_classes == ["only"] and metadata.evaluator_type == "sem_seg"
