"""Semantic, instance and panoptic files of ADE20K."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mask2former.data import DatasetCatalog
from mask2former.data.datasets.checks import check_mask_size
from mask2former.utils.errors import UserError

WALL, BED, PERSON = 0, 7, 12  # class numbers counted from 0
BED_INSTANCE, PERSON_INSTANCE = 1, 4  # instance categories counted from 1
SPLITS = {"train": "training", "val": "validation"}


@pytest.fixture
def ade(tmp_path, write_image):
    """Two images per split, 4x8: other, wall, and a bed without instance in the semantic map; a bed that reaches over
    the wall and a person as instances."""
    semantic = np.zeros((4, 8))
    semantic[:, 2:6], semantic[:, 6:] = WALL + 1, BED + 1
    instances = np.zeros((4, 8, 3))
    instances[0:2, 1:4] = (BED_INSTANCE, 1, 0)
    instances[3, 5:7] = (PERSON_INSTANCE, 2, 0)
    root = tmp_path / "ADEChallengeData2016"
    for split, folder in SPLITS.items():
        for i in range(2):
            stem = f"ADE_{split}_0000000{i}"
            write_image(root / "images" / folder / f"{stem}.jpg", np.zeros((4, 8, 3)))
            write_image(root / "annotations" / folder / f"{stem}.png", semantic)
            write_image(root / "annotations_instance" / folder / f"{stem}.png", instances)
    return tmp_path


def test_semantic_ids_start_at_zero(ade, script, read, untouched):
    module = script("prepare_ade20k_sem_seg")
    module.prepare(ade, workers=2)
    for split, folder in SPLITS.items():
        for i in range(2):
            path = ade / "ADEChallengeData2016" / "annotations_detectron2" / folder / f"ADE_{split}_0000000{i}.png"
            assert read(path)[0].tolist() == [255, 255, WALL, WALL, WALL, WALL, BED, BED]
    before = untouched(ade)
    module.prepare(ade, workers=2)
    assert untouched(ade) == before


def test_instances(ade, script):
    script("prepare_ade20k_ins_seg").prepare(ade, workers=2)
    content = json.loads((ade / "ADEChallengeData2016" / "ade20k_instance_train.json").read_text())
    assert len(content["categories"]) == 100 and content["categories"][0] == {"id": BED, "name": "bed"}
    stems = ["ADE_train_00000000", "ADE_train_00000001"]
    assert content["images"] == [{"id": s, "file_name": f"{s}.jpg", "height": 4, "width": 8} for s in stems]
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4]
    assert [a["image_id"] for a in content["annotations"]] == [stems[0]] * 2 + [stems[1]] * 2
    bed, person = content["annotations"][:2]
    assert (bed["category_id"], bed["area"], bed["bbox"], bed["iscrowd"]) == (BED, 6, [1, 0, 3, 2], 0)
    assert (person["category_id"], person["area"], person["bbox"]) == (PERSON, 2, [5, 3, 2, 1])
    expected = np.zeros((4, 8))
    expected[0:2, 1:4] = 1
    np.testing.assert_array_equal(coco_mask.decode(bed["segmentation"]), expected)


def test_panoptic_paints_things_over_stuff(ade, script, read, untouched):
    module = script("prepare_ade20k_pan_seg")
    module.prepare(ade, workers=2)
    root = ade / "ADEChallengeData2016"
    content = json.loads((root / "ade20k_panoptic_val.json").read_text())
    assert [c["isthing"] for c in content["categories"]].count(1) == 100 and len(content["categories"]) == 150
    annotation = content["annotations"][1]
    assert annotation["image_id"] == content["images"][1]["id"] == "ADE_val_00000001"
    rgb = read(root / "ade20k_panoptic_val" / annotation["file_name"]).astype(int)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    classes = {segment["id"]: segment["category_id"] for segment in annotation["segments_info"]}
    drawn = [[classes.get(v, -1) for v in row] for row in ids.tolist()]
    assert drawn[0] == [-1, BED, BED, BED, WALL, WALL, -1, -1]  # a bed pixel without instance is void
    assert drawn[3] == [-1, -1, WALL, WALL, WALL, PERSON, PERSON, -1]
    assert sorted(classes.values()) == [WALL, BED, PERSON]
    for segment in annotation["segments_info"]:
        mask = ids == segment["id"]
        rows, columns = mask.nonzero()
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert segment["area"] == mask.sum() and segment["bbox"] == box and segment["iscrowd"] == 0
    before = untouched(ade)
    module.prepare(ade, workers=2)
    assert untouched(ade) == before


def test_an_interrupted_panoptic_run_is_finished(ade, script, untouched):
    module, root = script("prepare_ade20k_pan_seg"), ade / "ADEChallengeData2016"
    module.prepare(ade, workers=1)
    before, content = untouched(ade), (root / "ade20k_panoptic_train.json").read_text()
    (root / "ade20k_panoptic_train.json").unlink()
    (root / "ade20k_panoptic_train" / "ADE_train_00000001.png").unlink()
    module.prepare(ade, workers=1)
    changed = {path.name for path, state in untouched(ade).items() if before[path] != state}
    assert changed == {"ade20k_panoptic_train.json", "ADE_train_00000001.png"}
    assert (root / "ade20k_panoptic_train.json").read_text() == content


def test_mistakes_in_the_files_are_told(ade, script, write_image):
    path = ade / "ADEChallengeData2016" / "annotations_instance" / "training" / "ADE_train_00000001.png"
    module = script("prepare_ade20k_ins_seg")
    write_image(path, (101, 1, 0))
    with pytest.raises(UserError, match=r"ADE_train_00000001\.png \(green channel\) has the categories \[101\]"):
        module.prepare(ade, workers=1)
    write_image(path, (1, 1, 0))
    with pytest.raises(UserError, match=r"ADE_train_00000001\.png has 8x8 pixels .* image 4x8"):
        module.prepare(ade, workers=1)
    path.unlink()
    with pytest.raises(UserError, match=r"ADE_train_00000001\.png does not exist"):
        module.prepare(ade, workers=1)


def test_missing_folders_name_their_source(ade, script):
    for module in ("prepare_ade20k_ins_seg", "prepare_ade20k_pan_seg"):
        (ade / "ADEChallengeData2016" / "annotations_instance").rename(ade / module)
        with pytest.raises(UserError, match=r"annotations_instance/training does not exist.*annotations_instance\.tar"):
            script(module).prepare(ade, workers=1)
        (ade / module).rename(ade / "ADEChallengeData2016" / "annotations_instance")


def test_readers_take_what_the_scripts_make(ade, script, published):
    for name in ("sem_seg", "ins_seg", "pan_seg"):
        script(f"prepare_ade20k_{name}").prepare(ade, workers=1)
    published(ade)
    for split in SPLITS:
        (_, second) = DatasetCatalog.get(f"ade20k_instance_{split}")
        assert [a["category_id"] for a in second["annotations"]] == [0, 3]  # bed and person among the 100 things
        (first, _) = DatasetCatalog.get(f"ade20k_panoptic_{split}")
        assert {s["category_id"]: s["isthing"] for s in first["segments_info"]} == {WALL: 0, BED: 1, PERSON: 1}
        assert len(DatasetCatalog.get(f"ade20k_sem_seg_{split}")) == 2


WALL_FULL, BED_FULL, UNUSED_FULL = 2978, 165, 3001  # ids of the full release; the last one is none of the 847


def _code(full_id):
    return (full_id // 256 * 10, full_id % 256, 0)


@pytest.fixture
def ade_full(tmp_path, write_image):
    """Two images per split, the second one large: a column each of wall, bed, an unused class, nothing."""
    for split in SPLITS.values():
        folder = tmp_path / "ADE20K_2021_17_01" / "images" / "ADE" / split / "home" / "bedroom"
        for i, (height, width) in enumerate(((4, 8), (600, 1200))):
            codes = [_code(WALL_FULL), _code(BED_FULL), _code(UNUSED_FULL), (0, 0, 0)]
            encoded = np.repeat(np.broadcast_to(codes, (height, 4, 3)), width // 4, axis=1)
            write_image(folder / f"ADE_{split}_0000000{i}.jpg", np.zeros((height, width, 3)))
            write_image(folder / f"ADE_{split}_0000000{i}_seg.png", encoded)
    return tmp_path


def test_full_release_gets_16_bit_classes(ade_full, script, read, untouched, published):
    module = script("prepare_ade20k_full_sem_seg")
    module.prepare(ade_full, workers=2)
    root = ade_full / "ADE20K_2021_17_01"
    for split in SPLITS.values():
        for i, size in enumerate(((4, 8), (512, 1024))):
            mask = read(root / "annotations_detectron2" / split / f"ADE_{split}_0000000{i}.tif")
            image = read(root / "images_detectron2" / split / f"ADE_{split}_0000000{i}.jpg")
            check_mask_size(mask.shape, image.shape[:2], "")
            assert mask.shape == size and mask.dtype == np.uint16
            np.testing.assert_array_equal(np.unique(mask[:, : size[1] // 4]), [0])
            np.testing.assert_array_equal(np.unique(mask[:, size[1] // 4 : size[1] // 2]), [7])
            np.testing.assert_array_equal(np.unique(mask[:, size[1] // 2 :]), [65535])
    published(ade_full)
    assert [len(DatasetCatalog.get(f"ade20k_full_sem_seg_{split}")) for split in SPLITS] == [2, 2]
    before = untouched(ade_full)
    module.prepare(ade_full, workers=2)
    assert untouched(ade_full) == before


def test_full_ids_agree_with_the_published_things(repo_dir, shared_dir):
    ids = json.loads((repo_dir / "datasets" / "ade20k_full_ids.json").read_text())["ids"]
    assert len(set(ids)) == len(ids) == 847
    rows = json.loads((shared_dir / "reference" / "ade20k_instance.json").read_text())["rows"]
    assert {row["full"] for row in rows} - set(ids) == {246}  # a second id of "booth"


def test_instance_categories_are_the_published_ones(script, shared_dir, write_image, tmp_path):
    rows = json.loads((shared_dir / "reference" / "ade20k_instance.json").read_text())["rows"]
    pixels = np.zeros((1, 101, 3))
    pixels[0, 1:, 0] = pixels[0, 1:, 1] = np.arange(1, 101)
    _, masks = script("_ade20k").instance_masks(write_image(tmp_path / "a.png", pixels))
    assert [c + 1 for c, _ in masks] == [{r["instance"]: r["scene150"] for r in rows}[i] for i in range(1, 101)]
