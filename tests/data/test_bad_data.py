"""Each mistake in a data set is one UserError with the file, the value, what was expected and what to change."""

import json
import logging
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from mask2former.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_test_loader,
    build_train_loader,
    check_datasets,
    labels_of,
    load_sem_seg,
    register_custom,
)
from mask2former.data.datasets import checks
from mask2former.utils.errors import UserError

CLASSES = ["left", "right", "box"]  # of conftest.py


def _fails(cfg, message):
    """The mistake in the training folder is found by the early check and by the loader itself, before any batch."""
    for call in (check_datasets, build_train_loader):
        with pytest.raises(UserError, match=message):
            call(cfg)


def test_missing_root(tiny_cfg, tmp_path):
    with pytest.raises(UserError, match=r"nowhere of data set 'gone' does not exist.*DATASETS.CUSTOM.gone.ROOT"):
        tiny_cfg(
            "DATASETS.CUSTOM",
            {"gone": {"ROOT": str(tmp_path / "nowhere"), "CLASSES": CLASSES}},
            "DATASETS.TEST",
            ["gone_valid"],
        )


def test_missing_root_is_named_before_its_classes(tiny_cfg, tmp_path):
    with pytest.raises(UserError, match=r"nowhere of data set 'gone' does not exist"):
        tiny_cfg("DATASETS.CUSTOM", {"gone": {"ROOT": str(tmp_path / "nowhere")}}, "DATASETS.TEST", ["gone_valid"])


def test_missing_split(tiny_cfg, tiny_root):
    (tiny_root / "valid").rename(tiny_root / "held_out")
    with pytest.raises(UserError, match=r"image folder .*valid/images does not exist.*DATASETS.CUSTOM.<name>.ROOT"):
        check_datasets(tiny_cfg())


def test_missing_mask_folder(tiny_cfg, tiny_root):
    (tiny_root / "train" / "masks").rename(tiny_root / "train" / "labels")
    _fails(tiny_cfg(), r"mask folder .*train/masks does not exist")


def test_empty_folder(tiny_cfg, tiny_root):
    for path in (tiny_root / "train" / "images").iterdir():
        path.unlink()
    _fails(tiny_cfg(), r"image folder .*train/images is empty.*Put the images there")


def test_unpaired_files(tiny_cfg, tiny_root):
    (tiny_root / "train" / "masks" / "train1.png").unlink()
    (tiny_root / "train" / "masks" / "train2.png").rename(tiny_root / "train" / "masks" / "train_2.png")
    _fails(
        tiny_cfg(), r"without partner \(3\): .*train1\.png \(no mask.*train2\.png \(no mask.*train_2\.png \(no image"
    )


def test_two_images_of_one_stem(tiny_cfg, tiny_root):
    folder = tiny_root / "train" / "images"
    Image.open(folder / "train1.png").save(folder / "train1.jpg")
    _fails(tiny_cfg(), r"Two images have one stem: .*train1\.jpg and .*train1\.png")


def test_unreadable_image_header(tiny_cfg, tiny_root):
    (tiny_root / "train" / "images" / "train3.png").write_bytes(b"nothing")
    _fails(tiny_cfg(), r"train3\.png cannot be read.*Replace the file")


@pytest.mark.parametrize("split", ["train", "valid"])
def test_image_cut_off_after_its_header(tiny_cfg, tiny_root, split):
    path = tiny_root / split / "images" / f"{split}3.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{split}3\.png cannot be read"):
        check_datasets(tiny_cfg())


def test_image_beyond_the_early_check_is_found_when_it_comes(tiny_cfg, tiny_root, monkeypatch):
    monkeypatch.setattr(checks, "PIXELS_CHECKED", 1)  # the first record only
    path = tiny_root / "train" / "images" / "train3.png"
    path.write_bytes(path.read_bytes()[:200])
    loader = build_train_loader(tiny_cfg())
    with pytest.raises(UserError, match=r"train3\.png cannot be read"):
        list(islice(loader, 4))


def test_mask_of_another_size(tiny_cfg, tiny_root):
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(tiny_root / "train" / "masks" / "train4.png")
    _fails(tiny_cfg(), r"train4\.png has 24x30 pixels .*its image 24x32")


@pytest.mark.parametrize("value", [3, 7, 254])
def test_mask_value_outside_the_classes(tiny_cfg, tiny_root, value):
    path = tiny_root / "train" / "masks" / "train5.png"
    mask = np.array(Image.open(path))
    mask[:2, :3] = value
    mask[10] = 255  # ignored, and fine
    Image.fromarray(mask).save(path)
    _fails(tiny_cfg(), rf"train5\.png has the values {value} \(6 pixels\).*0 to 2 or the ignore value 255")


def test_every_mask_is_checked_while_training(tiny_cfg, tiny_root, monkeypatch):
    monkeypatch.setattr(checks, "PIXELS_CHECKED", 1)  # the start looks at the first mask only
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(tiny_root / "train" / "masks" / "train5.png")
    loader = build_train_loader(tiny_cfg("DATALOADER.NUM_WORKERS", 2))
    with pytest.raises(UserError) as caught:
        list(islice(loader, 4))
    assert str(caught.value).startswith("Mask ") and "Traceback" not in str(caught.value)


def test_data_that_changed_is_checked_again_after_registration(tiny_cfg, tiny_root):
    build_train_loader(tiny_cfg())
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(tiny_root / "train" / "masks" / "train5.png")
    _fails(tiny_cfg(), r"train5\.png has the values 9")


def test_colour_mask(tiny_cfg, tiny_root):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tiny_root / "train" / "masks" / "train0.png")
    _fails(tiny_cfg(), r"train0\.png has pixels of mode 'RGB'")


def test_class_count_that_the_model_does_not_have(tiny_cfg):
    message = "'tiny_train' has 3 classes .*NUM_CLASSES is 19. Set MODEL.SEM_SEG_HEAD.NUM_CLASSES 3"
    _fails(tiny_cfg("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 19), message)


def test_the_recipes_ignore_value_is_the_data_sets_or_the_default(tiny_cfg, tiny_root):
    key = "MODEL.SEM_SEG_HEAD.IGNORE_VALUE"
    _fails(tiny_cfg(key, 65), rf"{key} is 65, but data set 'tiny_train' ignores 255. Set {key} 255, or .*IGNORE_LABEL")
    custom = {"tiny": {"ROOT": str(tiny_root), "CLASSES": CLASSES, "IGNORE_LABEL": 65}}
    for recipe in (65, 255):  # 255, the default, leaves it to the data set
        check_datasets(tiny_cfg("DATASETS.CUSTOM", custom, key, recipe))


def test_negative_ignore_value(tiny_cfg, tiny_root):
    custom = {"tiny": {"ROOT": str(tiny_root), "CLASSES": CLASSES, "IGNORE_LABEL": -1}}
    _fails(tiny_cfg("DATASETS.CUSTOM", custom), "ignore value of data set 'tiny_train' is -1; expected 0 or more")


def test_ignored_class_is_said(tiny_cfg, tiny_root, monkeypatch):
    said = []
    monkeypatch.setattr(
        logging.getLogger("mask2former.data.datasets.checks"), "warning", lambda text, *args: said.append(text % args)
    )
    custom = {"tiny": {"ROOT": str(tiny_root), "CLASSES": CLASSES, "IGNORE_LABEL": 2}}
    check_datasets(tiny_cfg("DATASETS.CUSTOM", custom))
    assert said[0].startswith("class 2 (box) of data set 'tiny_train' is its ignore value")


def test_test_set_with_other_classes_is_said(tiny_cfg, monkeypatch):
    said = []
    monkeypatch.setattr(
        logging.getLogger("mask2former.data.datasets.build"), "warning", lambda text, *args: said.append(text % args)
    )
    cfg = tiny_cfg()
    check_datasets(cfg)
    assert not said
    MetadataCatalog.get("tiny_valid").set(stuff_classes=["left", "right", "circle"])
    check_datasets(cfg)
    assert "'tiny_valid'" in said[0] and "circle" in said[0]


def test_bad_validation_data_is_found_before_training(tiny_cfg, tiny_root):
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(tiny_root / "valid" / "masks" / "valid2.png")
    for call in (check_datasets, lambda cfg: build_test_loader(cfg, "tiny_valid")):
        with pytest.raises(UserError, match=r"valid2\.png has the values 9"):
            call(tiny_cfg())


def test_records_without_masks_can_be_tested_but_not_trained_on(tiny_cfg, tiny_root):
    files = sorted((tiny_root / "valid" / "images").iterdir())
    DatasetCatalog.register("bare", lambda: [{"file_name": str(f)} for f in files])
    MetadataCatalog.get("bare").set(stuff_classes=CLASSES)
    cfg = tiny_cfg("DATASETS.TRAIN", ["bare"], "DATASETS.TEST", ["bare"])
    assert len(build_test_loader(cfg, "bare")) == 5
    message = "Record 0 of data set 'bare' has no 'sem_seg_file_name'"
    _fails(cfg, message)
    check_datasets(cfg, training=False)
    MetadataCatalog.get("bare").set(evaluator_type="sem_seg")  # from now on it is to be evaluated
    with pytest.raises(UserError, match=message):
        check_datasets(cfg, training=False)


def test_records_of_a_wrong_size_and_empty_data_sets(tiny_cfg, tiny_root):
    path = str(tiny_root / "valid" / "images" / "valid0.png")
    DatasetCatalog.register("wrong", lambda: [{"file_name": path, "height": 32, "width": 24}])
    DatasetCatalog.register("none", list)
    for name, message in (("wrong", r"valid0\.png is 24x32 .*32x24"), ("none", "'none' has no records")):
        MetadataCatalog.get(name).set(stuff_classes=CLASSES)
        with pytest.raises(UserError, match=message):
            build_test_loader(tiny_cfg(), name)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "ROOT is missing"),
        ({"ROT": "x"}, "no key 'ROT'. Did you mean 'ROOT'"),
        ({"ROOT": "x", "TYPE": "coco"}, "TYPE is 'coco'; expected one of 'sem_seg_folder', 'coco_instances'"),
        ({"ROOT": "tiny"}, r"no class names.*CLASSES.*classes\.json"),
        ({"ROOT": "tiny", "CLASSES": ["a", "a"]}, "names a more than once"),
        ({"ROOT": "tiny", "CLASSES": "road"}, "must be a list of class names"),
    ],
)
def test_custom_entries_are_checked(tiny_root, monkeypatch, entry, message):
    monkeypatch.chdir(tiny_root.parent)
    with pytest.raises(UserError, match=message):
        register_custom("mine", entry)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read as JSON"),
        ('{"names": ["a"]}', "must hold a list of class names"),
        ('{"classes": ["a", "b"], "colors": [[1, 2, 3]]}', r"colors \[\[1, 2, 3\]\] for 2 classes"),
        ('{"classes": ["a", "b"], "colors": [1, 2]}', r"colors \[1, 2\] for 2 classes"),
    ],
)
def test_classes_file_is_checked(tiny_root, content, message):
    (tiny_root / "classes.json").write_text(content)
    with pytest.raises(UserError, match=message):
        register_custom("mine", {"ROOT": str(tiny_root)})


def test_classes_come_from_the_file_or_from_the_recipe(tiny_root):
    content = {"classes": ["a", "b", "c"], "ignore_label": 99, "colors": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    (tiny_root / "classes.json").write_text(json.dumps(content))
    register_custom("mine", {"ROOT": str(tiny_root)})
    labels = labels_of(MetadataCatalog.get("mine_valid"))
    assert labels.names == ("a", "b", "c") and labels.ignore_label == 99 and labels.colors[1] == (4, 5, 6)
    register_custom("mine", {"ROOT": str(tiny_root), "CLASSES": ["x", "y", "z"], "IGNORE_LABEL": 0})
    labels = labels_of(MetadataCatalog.get("mine_valid"))
    assert labels.names == ("x", "y", "z") and labels.ignore_label == 0 and labels.colors == ()
    (tiny_root / "classes.json").write_text('["p", "q"]')
    register_custom("mine", {"ROOT": str(tiny_root)})
    assert labels_of(MetadataCatalog.get("mine_train")).names == ("p", "q")


def test_pairing_looks_into_subfolders_and_at_the_asked_suffixes(write_pair, tmp_path):
    for city, stem in (("b", "1"), ("a", "2"), ("a", "1")):
        write_pair(tmp_path / city, stem)
        for kind in ("images", "masks"):
            (tmp_path / kind / city).mkdir(parents=True, exist_ok=True)
            (tmp_path / city / kind / f"{stem}.png").rename(tmp_path / kind / city / f"{stem}.png")
    (tmp_path / "images" / "notes.txt").write_text("not an image")
    records = load_sem_seg(tmp_path / "masks", tmp_path / "images", gt_ext="png", image_ext="PNG")
    assert [r["image_id"] for r in records] == ["a/1", "a/2", "b/1"]
    with pytest.raises(UserError, match=r"no \*\.jpg in it"):
        load_sem_seg(tmp_path / "masks", tmp_path / "images")
