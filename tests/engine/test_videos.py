"""Evaluation of videos by recipe: models of images, models that do not fit, and a pass that ends early."""

import importlib
import json
import sys

import pytest
import torch

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of, register_datasets
from mask2former.data.datasets import checks
from mask2former.engine import run
from mask2former.engine.run import do_evaluate
from mask2former.evaluation import EVALUATORS
from mask2former.modeling import build_model
from mask2former.utils.errors import UserError
from tests.modeling.conftest import tiny_config


@pytest.fixture(autouse=True)
def own_catalogs():
    """Every test starts and ends with the catalogs as they were."""
    before = dict(DatasetCatalog._sources), dict(MetadataCatalog._entries)
    yield
    DatasetCatalog._sources, MetadataCatalog._entries = before


@pytest.fixture
def root(repo_dir, tmp_path):
    """Drawn videos, 1 + 3 of 48x64 pixels, shortened to five frames."""
    sys.path.insert(0, str(repo_dir / "datasets"))  # as for a script there
    try:
        importlib.import_module("_moving_shapes").make(tmp_path / "videos", train=1, valid=3, size=64)
    finally:
        sys.path.remove(str(repo_dir / "datasets"))
    for split in ("train", "valid"):
        path = tmp_path / "videos" / f"{split}.json"
        content = json.loads(path.read_text())
        for video in content["videos"]:
            video["file_names"], video["length"] = video["file_names"][:5], 5
        for track in content["annotations"]:
            for key in ("segmentations", "bboxes", "areas"):
                track[key] = track[key][:5]
        path.write_text(json.dumps(content))
    return tmp_path / "videos"


@pytest.fixture
def recipe(root, tmp_path):
    """A function of KEY, VALUE, ... that gives a recipe over the videos, of a tiny image model with a checkpoint."""

    def build(*opts, names=None):
        splits = {s: {"IMAGES": f"{s}/JPEGImages", "ANNOTATIONS": f"{s}.json"} for s in ("train", "valid")}
        cfg = tiny_config()
        weights, out = str(tmp_path / "model.pth"), str(tmp_path / "out")
        cfg.merge_from_list(
            [
                *("DATASETS.CUSTOM", {"vid": {"TYPE": "ytvis", "ROOT": str(root), "SPLITS": splits}}),
                *("DATASETS.TRAIN", ["vid_train"], "DATASETS.TEST", ["vid_valid"]),
                *("MODEL.WEIGHTS", weights, "OUTPUT_DIR", out, "DATALOADER.NUM_WORKERS", 0),
                *("INPUT.MIN_SIZE_TEST", 48, "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
                *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False, *opts),
            ]
        )
        register_datasets(cfg)
        labels = labels_of(MetadataCatalog.get("vid_valid"))
        stored = {**labels.to_dict(), **({"names": names} if names else {})}
        torch.save({"model": build_model(cfg, labels).state_dict(), "labels": stored}, weights)
        return cfg

    return build


def test_an_image_model_is_evaluated_on_videos(recipe, tmp_path, caplog):
    with caplog.at_level("INFO"):
        results = do_evaluate(recipe("TEST.SAVE_PREDICTIONS", True))["vid_valid"]
    assert list(results) == ["segm", "frame_segm", "tracking"]
    assert "linked from frame to frame" in caplog.text
    folder = tmp_path / "out" / "inference"
    tracks = json.loads((folder / "ytvis" / "results.json").read_text())
    assert {len(track["segmentations"]) for track in tracks} == {5}
    assert {track["category_id"] for track in tracks} <= {1, 2, 3, 5, 7}
    assert (folder / "contact_sheet.png").is_file()


def test_classes_must_be_those_of_the_videos(recipe):
    with pytest.raises(UserError, match="trained with other classes than those of 'vid_valid'.*only in the data set"):
        do_evaluate(recipe(names=["circle", "square", "triangle", "star", "moon"]))
    cfg = recipe()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 80
    with pytest.raises(UserError, match="'vid_valid' has 5 classes .*NUM_CLASSES is 80"):
        do_evaluate(cfg)


def test_instances_must_be_on(recipe):
    with pytest.raises(UserError, match="TEST.INSTANCE_ON to True"):
        do_evaluate(recipe("MODEL.MASK_FORMER.TEST.INSTANCE_ON", False))


def test_instances_must_be_on_whatever_evaluates_the_videos(recipe, monkeypatch):
    monkeypatch.setattr(run, "load_checkpoint_file", lambda path: pytest.fail("told too late"))
    cfg = recipe("MODEL.MASK_FORMER.TEST.INSTANCE_ON", False)
    monkeypatch.setitem(EVALUATORS, "own", lambda *args: [])
    MetadataCatalog.get("vid_valid").set(evaluator_type="own")
    with pytest.raises(UserError, match="'vid_valid' of DATASETS.TEST has videos.* Set .*INSTANCE_ON to True"):
        do_evaluate(cfg)


def test_a_video_model_takes_no_images(recipe, root):
    frames = root / "valid" / "JPEGImages" / "000"
    DatasetCatalog.register("pictures", lambda: [{"file_name": str(frames / "00000.jpg"), "annotations": []}])
    MetadataCatalog.get("pictures").set(thing_classes=list("abcde"), evaluator_type="coco")
    cfg = recipe("DATASETS.TRAIN", [], "DATASETS.TEST", ["pictures"], "MODEL.META_ARCHITECTURE", "VideoMaskFormer")
    with pytest.raises(UserError, match="takes videos, and the data set 'pictures' of DATASETS.TEST has images"):
        do_evaluate(cfg)


@pytest.mark.parametrize("architecture", ["MaskFormer", "VideoMaskFormer"])
def test_the_videos_before_a_broken_frame_are_kept(recipe, root, tmp_path, monkeypatch, architecture):
    monkeypatch.setattr(checks, "PIXELS_CHECKED", 1)  # it is in none of the frames that are read at the start
    (root / "valid" / "JPEGImages" / "001" / "00003.jpg").write_bytes(b"torn")
    with pytest.raises(UserError, match="Video 2: Image .*001/00003.jpg cannot be read .* Replace the file"):
        do_evaluate(recipe("MODEL.META_ARCHITECTURE", architecture))
    tracks = json.loads((tmp_path / "out" / "inference" / "ytvis" / "results_unfinished.json").read_text())
    assert {track["video_id"] for track in tracks} == {1}
