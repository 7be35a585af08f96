"""Own data declared in a recipe: semantic folders are in test_bad_data.py, COCO's formats here."""

import pytest

from mask2former.config import get_cfg
from mask2former.data import DatasetCatalog, MetadataCatalog, check_datasets, labels_of, register_custom
from mask2former.data.datasets.build import checked_records, infer_num_classes, register_datasets
from mask2former.utils.errors import UserError

SPLITS = ("train", "valid")
KEY = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"


def _instances(root, **split):
    paths = {s: {"IMAGES": f"{s}/images", "ANNOTATIONS": f"annotations/instances_{s}.json", **split} for s in SPLITS}
    return {"TYPE": "coco_instances", "ROOT": str(root), "SPLITS": paths}


def _panoptic(root, **split):
    paths = {
        s: {
            "IMAGES": f"{s}/images",
            "ANNOTATIONS": f"annotations/panoptic_{s}.json",
            "PANOPTIC": f"panoptic_{s}",
            "SEM_SEG": f"{s}/masks",
            "INSTANCES": f"annotations/instances_{s}.json",
            **split,
        }
        for s in SPLITS
    }
    return {"TYPE": "coco_panoptic", "ROOT": str(root), "SPLITS": paths}


def _cfg(entry, *opts):
    cfg = get_cfg()
    names = {"DATASETS.TRAIN": ["mine_train"], "DATASETS.TEST": ["mine_valid"]}
    cfg.merge_from_list(["DATASETS.CUSTOM", {"mine": entry}, *(x for pair in names.items() for x in pair), *opts])
    register_datasets(cfg)
    infer_num_classes(cfg)
    return cfg


def test_instances(shapes_root):
    cfg = _cfg(_instances(shapes_root))
    check_datasets(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5 and len(checked_records(cfg, "mine_train", True)) == 4
    for split in SPLITS:
        metadata = MetadataCatalog.get(f"mine_{split}")
        assert metadata.evaluator_type == "coco" and metadata.json_file.endswith(f"instances_{split}.json")
        assert labels_of(metadata).thing_ids == (0, 1, 2, 3, 4)
        assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1, 3: 2, 5: 3, 7: 4}


def test_panoptic(shapes_root):
    cfg = _cfg(_panoptic(shapes_root))
    check_datasets(cfg)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 8 and len(checked_records(cfg, "mine_valid", True)) == 3
    metadata = MetadataCatalog.get("mine_valid")
    assert metadata.evaluator_type == "coco_panoptic_seg" and metadata.json_file.endswith("instances_valid.json")
    labels = labels_of(metadata)
    assert labels.names[4:6] == ("ring", "grass") and labels.thing_ids == (0, 1, 2, 3, 4) and len(labels.colors) == 8
    assert all("sem_seg_file_name" in record for record in DatasetCatalog.get("mine_train"))


def test_semantic_maps_and_instances_may_be_left_out(shapes_root):
    _cfg(_panoptic(shapes_root, SEM_SEG="", INSTANCES=""))
    assert MetadataCatalog.get("mine_train").json_file is None
    assert not any("sem_seg_file_name" in record for record in DatasetCatalog.get("mine_train"))


def test_a_given_number_of_classes_is_kept_and_refused_where_it_is_wrong(shapes_root):
    cfg = _cfg(_instances(shapes_root), KEY, 7)
    assert cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 7
    with pytest.raises(UserError, match=rf"'mine_train' has 5 classes .*{KEY} is 7. Set {KEY} 5"):
        check_datasets(cfg)


def test_the_number_of_classes_comes_from_the_test_set_where_nothing_is_trained(shapes_root):
    assert _cfg(_instances(shapes_root), "DATASETS.TRAIN", []).MODEL.SEM_SEG_HEAD.NUM_CLASSES == 5
    with pytest.raises(UserError, match="Unknown data set 'mine_trian'. Did you mean 'mine_train'"):
        _cfg(_instances(shapes_root), "DATASETS.TRAIN", ["mine_trian"])


def test_splits_must_agree(shapes_root, edit_json):
    path = shapes_root / "annotations" / "instances_valid.json"
    edit_json(path, lambda c: c["categories"][0].update(name="disc"))
    message = r"'train' \(.*_train.json\) and 'valid' \(.*_valid.json\) .*first: \['circle'\]; .*second: \['disc'\]"
    with pytest.raises(UserError, match=message):
        register_custom("mine", _instances(shapes_root))
    path = shapes_root / "annotations" / "panoptic_valid.json"
    edit_json(path, lambda c: c["categories"][5].update(isthing=1))
    with pytest.raises(UserError, match=r"same names, but other things; .*only in the second: \['grass'\]"):
        register_custom("mine", _panoptic(shapes_root))


def test_a_split_without_its_file_says_so_when_it_is_used(shapes_root):
    (shapes_root / "annotations" / "instances_valid.json").unlink()
    register_custom("mine", _instances(shapes_root))
    assert len(DatasetCatalog.get("mine_train")) == 4
    assert labels_of(MetadataCatalog.get("mine_valid")) == labels_of(MetadataCatalog.get("mine_train"))
    with pytest.raises(UserError, match="instances_valid.json does not exist.*SPLITS under DATASETS.CUSTOM"):
        DatasetCatalog.get("mine_valid")


def _without(entry, key):
    return {k: v for k, v in entry.items() if k != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {**e, "TYPE": "coco_instance"}, "TYPE is 'coco_instance'; .*Did you mean 'coco_instances'"),
        (lambda e: {**e, "CLASES": []}, "DATASETS.CUSTOM.mine has no key 'CLASES'. Known: TYPE, ROOT, SPLITS"),
        (lambda e: _without(e, "ROOT"), "DATASETS.CUSTOM.mine.ROOT is missing"),
        (lambda e: {**e, "ROOT": "nowhere"}, "The folder nowhere of data set 'mine' does not exist"),
        (
            lambda e: _without(e, "SPLITS"),
            "CUSTOM.mine.SPLITS is None; expected a mapping.*IMAGES, ANNOTATIONS",
        ),
        (lambda e: {**e, "SPLITS": {"train": "x"}}, "SPLITS.train is 'x'; expected a mapping with IMAGES"),
        (lambda e: {**e, "SPLITS": {"train": {"IMAGES": "x"}}}, "SPLITS.train.ANNOTATIONS is missing"),
        (lambda e: {**e, "SPLITS": {"train": {"IMAGE": "x"}}}, "no key 'IMAGE'. Did you mean 'IMAGES'"),
    ],
)
def test_entries_are_checked(shapes_root, change, message):
    with pytest.raises(UserError, match=message):
        register_custom("mine", change(_instances(shapes_root)))


@pytest.mark.parametrize("key", ["IMAGES", "ANNOTATIONS", "PANOPTIC", "SEM_SEG", "INSTANCES"])
def test_missing_paths_name_their_key(shapes_root, key):
    with pytest.raises(UserError, match=rf"nowhere does not exist.*correct DATASETS.CUSTOM.mine.SPLITS.train.{key}"):
        register_custom("mine", _panoptic(shapes_root, **{key: "nowhere"}))


def test_several_types_stand_side_by_side(shapes_root):
    cfg = get_cfg()
    entries = {"sem": {"ROOT": str(shapes_root)}, "ins": _instances(shapes_root), "pan": _panoptic(shapes_root)}
    cfg.merge_from_list(["DATASETS.CUSTOM", entries, "DATASETS.TRAIN", ["sem_train", "pan_train"]])
    register_datasets(cfg)
    infer_num_classes(cfg)
    check_datasets(cfg)  # a semantic set does not say which classes are things, so these go together
    assert {f"{name}_{split}" for name in entries for split in SPLITS} <= {*DatasetCatalog.list()}
