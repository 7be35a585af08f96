"""Semantic maps from COCO's panoptic annotations, and those of COCO-Stuff-10k."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.io import savemat

from mask2former.data import DatasetCatalog
from mask2former.utils.errors import UserError

PERSON, BANNER, RUG = 1, 92, 200  # category ids: first thing, first stuff, last class
SCRIPTS = {
    "prepare_coco_semantic_annos_from_panoptic_annos": ("panoptic_semseg_{}", {PERSON: 0, BANNER: 80, RUG: 132}),
    "prepare_panoptic_fpn": ("panoptic_stuff_{}", {PERSON: 0, BANNER: 1, RUG: 53}),
}


@pytest.fixture
def coco(tmp_path, write_image):
    """Three panoptic pictures per split: a void row above stripes of the segments 7 (person), 70000 and 300."""
    for split in ("train2017", "val2017"):
        annotations = []
        for i in range(3):
            ids = np.repeat([0, 7, 70000, 300], 2)[:, None] + np.zeros(6, int)
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1)
            write_image(tmp_path / "coco" / f"panoptic_{split}" / f"{i}.png", rgb)
            segments = [{"id": s, "category_id": c} for s, c in ((7, PERSON), (70000, BANNER), (300, RUG))]
            annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": segments})
        listed = tmp_path / "coco" / "annotations" / f"panoptic_{split}.json"
        listed.parent.mkdir(exist_ok=True)
        listed.write_text(json.dumps({"annotations": annotations}))
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_segments_become_contiguous_classes(coco, script, read, name):
    folder, classes = SCRIPTS[name]
    script(name).prepare(coco, workers=2)
    for split in ("train2017", "val2017"):
        for i in range(3):
            written = read(coco / "coco" / folder.format(split) / f"{i}.png")
            assert written.dtype == np.uint8 and written.shape == (8, 6)
            assert written[::2, 0].tolist() == [255, classes[PERSON], classes[BANNER], classes[RUG]]


def test_a_second_run_writes_only_what_is_missing(coco, script, untouched, capsys):
    module = script("prepare_panoptic_fpn")
    module.prepare(coco, workers=1)
    before = untouched(coco)
    (coco / "coco" / "panoptic_stuff_val2017" / "1.png").unlink()
    module.prepare(coco, workers=1)
    after = untouched(coco)
    assert after.keys() == before.keys()
    assert [p.name for p in before if before[p] != after[p]] == ["1.png"]
    assert "panoptic_stuff_val2017: 2 of 3 are there already" in capsys.readouterr().out


def test_a_broken_picture_leaves_no_half_written_file(coco, script):
    (coco / "coco" / "panoptic_val2017" / "1.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"panoptic_val2017/1\.png cannot be read"):
        script("prepare_panoptic_fpn").prepare(coco, workers=2)
    names = {p.name for p in (coco / "coco" / "panoptic_stuff_val2017").iterdir()}
    assert names <= {"0.png", "2.png"}


def test_missing_inputs_and_unknown_categories_are_told(coco, script, tmp_path):
    module = script("prepare_coco_semantic_annos_from_panoptic_annos")
    with pytest.raises(UserError, match=r"panoptic_val2017\.json does not exist.*cocodataset\.org.*--root"):
        module.prepare(tmp_path / "nowhere", workers=1)
    listed = coco / "coco" / "annotations" / "panoptic_val2017.json"
    listed.write_text(listed.read_text().replace(f'"category_id": {RUG}', '"category_id": 12'))
    with pytest.raises(UserError, match=r"panoptic_val2017\.json has the category id 12"):
        module.prepare(coco, workers=1)


def test_command_line_takes_the_root_from_the_environment(repo_dir, tmp_path):
    command = [sys.executable, str(repo_dir / "datasets" / "prepare_panoptic_fpn.py"), "--workers", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"DETECTRON2_DATASETS": str(tmp_path), "PATH": ""}, cwd=repo_dir
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/coco/annotations/panoptic_val2017.json does not exist.")


@pytest.fixture
def stuff_10k(tmp_path, write_image):
    """Release 1.1: two images for training, one for the test; COCO ids 0 (nothing), 1, 13 and 182."""
    root = tmp_path / "coco" / "coco_stuff_10k"
    for split, stems in (("train", ["a", "b"]), ("test", ["c"])):
        (root / "imageLists").mkdir(parents=True, exist_ok=True)
        (root / "imageLists" / f"{split}.txt").write_text("\n".join(stems) + "\n")
        for stem in stems:
            write_image(root / "images" / f"{stem}.jpg", np.zeros((4, 6, 3)))
            (root / "annotations").mkdir(exist_ok=True)
            ids = np.repeat([[0], [1], [13], [182]], 6, axis=1).astype(np.uint8)
            savemat(root / "annotations" / f"{stem}.mat", {"S": ids})
    return tmp_path


def test_coco_stuff_10k_ids_become_contiguous(stuff_10k, script, read, untouched, published):
    module = script("prepare_coco_stuff_10k_sem_seg")
    module.prepare(stuff_10k, workers=2)
    root = stuff_10k / "coco" / "coco_stuff_10k"
    for place in ("train/a", "train/b", "test/c"):
        written = read(root / "annotations_detectron2" / f"{place}.png")
        assert written.shape == (4, 6) and written[:, 0].tolist() == [255, 0, 11, 170]
        assert read(root / "images_detectron2" / f"{place}.jpg").shape == (4, 6, 3)
    published(stuff_10k)
    assert [len(DatasetCatalog.get(f"coco_2017_{split}_stuff_10k_sem_seg")) for split in ("train", "test")] == [2, 1]
    before = untouched(stuff_10k)
    module.prepare(stuff_10k, workers=2)
    assert untouched(stuff_10k) == before


def test_coco_stuff_10k_mistakes_are_told(stuff_10k, script, write_image):
    module, root = script("prepare_coco_stuff_10k_sem_seg"), stuff_10k / "coco" / "coco_stuff_10k"
    write_image(root / "images" / "b.jpg", np.zeros((4, 5, 3)))
    with pytest.raises(UserError, match=r"b\.mat has 4x6 pixels .* its image 4x5"):
        module.prepare(stuff_10k, workers=1)
    (root / "annotations" / "b.mat").write_bytes(b"x" * 200)
    with pytest.raises(UserError, match=r'b\.mat has no readable matrix "S"'):
        module.prepare(stuff_10k, workers=1)


def test_coco_stuff_10k_release_1_0(tmp_path, script):
    module = script("prepare_coco_stuff_10k_sem_seg")
    path = tmp_path / "a.mat"
    try:
        import h5py
    except ImportError:
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 100)
        with pytest.raises(UserError, match="needs h5py: pip install h5py"):
            module._classes(path)
        return
    with h5py.File(path, "w") as file:
        file["S"] = np.array([[1, 2], [3, 172]], np.float64).T
    assert module._classes(path).tolist() == [[255, 0], [1, 170]]
