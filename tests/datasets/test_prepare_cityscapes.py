"""Cityscapes through cityscapesScripts."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from mask2former.data import DatasetCatalog
from mask2former.utils.errors import UserError

ROAD, CAR = 7, 26  # label ids; their training ids are 0 and 13
SIZE = (4, 8)


def _write(folder, stem):
    folder.mkdir(parents=True, exist_ok=True)
    boxes = {"road": [[0, 0], [7, 0], [7, 1], [0, 1]], "car": [[0, 2], [3, 2], [3, 3], [0, 3]]}
    objects = [{"label": label, "polygon": polygon} for label, polygon in boxes.items()]
    content = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": objects}
    (folder / f"{stem}_gtFine_polygons.json").write_text(json.dumps(content))
    ids = np.zeros(SIZE, np.uint16)
    ids[:2], ids[2:, :4] = ROAD, CAR * 1000
    Image.fromarray(ids).save(folder / f"{stem}_gtFine_instanceIds.png")


@pytest.fixture
def cityscapes(tmp_path):
    pytest.importorskip("cityscapesscripts")
    for split, cities in (("train", ("aachen", "bochum")), ("val", ("ulm",))):
        for city in cities:
            for i in range(2):
                _write(tmp_path / "cityscapes" / "gtFine" / split / city, f"{city}_000000_00000{i}")
    return tmp_path


def test_training_ids_and_panoptic(cityscapes, script, read, untouched):
    module, fine = script("prepare_cityscapes"), cityscapes / "cityscapes" / "gtFine"
    module.prepare(cityscapes, workers=2)
    for city in ("train/aachen", "train/bochum", "val/ulm"):
        stem = f"{city.split('/')[1]}_000000_000001"
        train_ids = read(fine / city / f"{stem}_gtFine_labelTrainIds.png")
        assert train_ids[0].tolist() == [0] * 8 and train_ids[3].tolist() == [13] * 4 + [255] * 4
    content = json.loads((fine / "cityscapes_panoptic_train.json").read_text())
    stems = [f"{city}_000000_00000{i}" for city in ("aachen", "bochum") for i in range(2)]
    assert [image["id"] for image in content["images"]] == stems == [a["image_id"] for a in content["annotations"]]
    segments = content["annotations"][3]["segments_info"]
    assert [(s["id"], s["category_id"], s["area"]) for s in segments] == [(ROAD, ROAD, 16), (CAR * 1000, CAR, 8)]
    rgb = read(fine / "cityscapes_panoptic_train" / content["annotations"][3]["file_name"]).astype(int)
    assert np.unique(rgb[..., 0] + 256 * rgb[..., 1]).tolist() == [0, ROAD, CAR * 1000]
    assert not [p.name for p in fine.iterdir() if p.name.startswith(".")]
    before = untouched(cityscapes)
    module.prepare(cityscapes, workers=2)
    assert untouched(cityscapes) == before


def test_readers_take_what_the_script_makes(cityscapes, script, published):
    script("prepare_cityscapes").prepare(cityscapes, workers=1)
    for path in (cityscapes / "cityscapes" / "gtFine").glob("*/*/*_polygons.json"):
        name = path.name.replace("gtFine_polygons.json", "leftImg8bit.png")
        image = cityscapes / "cityscapes" / "leftImg8bit" / path.parent.parent.name / path.parent.name / name
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(image)
    published(cityscapes)
    for kind in ("sem_seg", "instance_seg", "panoptic"):
        assert len(DatasetCatalog.get(f"cityscapes_fine_{kind}_train")) == 4, kind
    (segments, _) = (record["segments_info"] for record in DatasetCatalog.get("cityscapes_fine_panoptic_val"))
    assert [(s["category_id"], bool(s["isthing"])) for s in segments] == [(0, False), (13, True)]


def test_an_interrupted_run_goes_on_with_the_next_city(cityscapes, script):
    module, fine = script("prepare_cityscapes"), cityscapes / "cityscapes" / "gtFine"
    broken = fine / "train" / "bochum" / "bochum_000000_000000_gtFine_instanceIds.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"no picture")
    with pytest.raises(UserError, match="cityscapesScripts cannot convert .*bochum"):
        module.prepare(cityscapes, workers=1)
    part = fine / ".cityscapes_panoptic_train" / "aachen.json"
    made = part.stat().st_mtime_ns
    with pytest.raises(UserError):
        module.prepare(cityscapes, workers=1)
    assert part.stat().st_mtime_ns == made
    broken.write_bytes(whole)
    module.prepare(cityscapes, workers=1)
    assert len(json.loads((fine / "cityscapes_panoptic_train.json").read_text())["annotations"]) == 4
    assert len(list((fine / "cityscapes_panoptic_train").iterdir())) == 4 and not part.parent.exists()


def test_a_broken_annotation_is_named(cityscapes, script):
    path = cityscapes / "cityscapes" / "gtFine" / "val" / "ulm" / "ulm_000000_000001_gtFine_polygons.json"
    path.write_text(path.read_text().replace('"road"', '"raod"'))
    with pytest.raises(UserError, match="ulm_000000_000001_gtFine_polygons.json"):
        script("prepare_cityscapes").prepare(cityscapes, workers=1)


def test_missing_scripts_and_folders_are_told(cityscapes, script, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"gtFine/train does not exist.*gtFine_trainvaltest\.zip"):
        script("prepare_cityscapes").prepare(tmp_path / "nowhere", workers=1)
    monkeypatch.setitem(sys.modules, "cityscapesscripts.preparation", None)
    with pytest.raises(UserError, match=r"pip install .mask2former\[cityscapes\]"):
        script("prepare_cityscapes").prepare(cityscapes, workers=1)
