"""demo.py: inputs found, drawings named, mistakes told."""

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.config import get_cfg
from mask2former.structures import Instances, LabelSet
from mask2former.utils.errors import UserError

LABELS = LabelSet(("sky", "car"), thing_ids=(1,))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("b.jpg", "a.png", "c.JPG"):
        Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


class FakePredictor:
    """Gives the results named in `kinds`."""

    kinds = ("sem_seg",)
    labels = LABELS

    def __init__(self, cfg):
        self.cfg = cfg

    def __call__(self, image):
        h, w = image.shape[:2]
        masks = torch.zeros(1, h, w)
        masks[0, 5:20, 5:30] = 1
        results = {
            "sem_seg": torch.stack([torch.ones(h, w), torch.zeros(h, w)]),
            "panoptic_seg": (torch.ones(h, w, dtype=torch.int32), [{"id": 1, "category_id": 0, "isthing": False}]),
            "instances": Instances(
                (h, w), pred_masks=masks, scores=torch.tensor([0.6]), pred_classes=torch.tensor([1])
            ),
        }
        return {kind: results[kind] for kind in self.kinds}


@pytest.fixture
def fake(demo, monkeypatch):
    monkeypatch.setattr(demo, "Predictor", FakePredictor)
    monkeypatch.setattr(demo, "config_of", lambda args: get_cfg())
    return FakePredictor


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_is_drawn(demo, fake, photos, tmp_path, capsys):
    assert demo.main(["--input", str(photos), "--output", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    assert Image.open(tmp_path / "out" / "a.png").size == (60, 40)
    assert "3 of 3 images drawn" in capsys.readouterr().out


def test_several_kinds_are_told_apart_by_name(demo, fake, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "kinds", ("sem_seg", "panoptic_seg", "instances"))
    assert demo.main(["--input", str(photos / "a.png"), "--output", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["a_instances.png", "a_panoptic.png", "a_semantic.png"]


def test_the_threshold_chooses_instances(demo, fake, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(fake, "kinds", ("instances",))
    for threshold, drawn in (("0.5", True), ("0.7", False)):
        target = tmp_path / f"{threshold}.png"
        args = ["--input", str(photos / "a.png"), "--output", str(target), "--confidence-threshold", threshold]
        assert demo.main(args) == 0
        assert (np.array(Image.open(target)) != 90).any() == drawn


def test_an_unreadable_image_is_said_and_skipped(demo, fake, photos, tmp_path, capsys):
    (photos / "aa.jpg").write_bytes(b"not an image")
    assert demo.main(["--input", str(photos), "--output", str(tmp_path / "out")]) == 1
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png"]
    captured = capsys.readouterr()
    assert "aa.jpg" in captured.err
    assert "3 of 4 images drawn" in captured.out


@pytest.mark.parametrize("text", ["nothing/here.jpg", "nothing/*.jpg"])
def test_inputs_that_stand_for_nothing(demo, fake, tmp_path, capsys, text):
    assert demo.main(["--input", text, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert "--input" in error


def test_an_empty_folder_is_named(demo, tmp_path):
    with pytest.raises(UserError, match="holds no image"):
        demo.find_images([str(tmp_path)])


def test_files_patterns_and_folders_each_image_once(demo, photos):
    found = demo.find_images([str(photos / "c.JPG"), str(photos / "*.png"), str(photos)])
    assert [p.name for p in found] == ["c.JPG", "a.png", "b.jpg"]


def test_one_name_from_two_folders_is_numbered(demo, tmp_path):
    paths = [tmp_path / "x" / "a.jpg", tmp_path / "y" / "a.jpg", tmp_path / "z" / "a_2.jpg", tmp_path / "z" / "a.jpg"]
    assert [p.name for p in demo.plan_outputs(paths, tmp_path / "out")] == ["a.png", "a_2.png", "a_2_2.png", "a_3.png"]


def test_outputs_that_would_do_harm(demo, photos, tmp_path):
    images = demo.find_images([str(photos)])
    with pytest.raises(UserError, match="overwrite the input"):
        demo.plan_outputs(images, photos)
    with pytest.raises(UserError, match="names one image"):
        demo.plan_outputs(images, tmp_path / "one.png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        demo.plan_outputs(images, tmp_path / "file")


def test_a_model_without_results_is_explained(demo, fake, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fake, "kinds", ())
    assert demo.main(["--input", str(photos), "--output", str(tmp_path / "out")]) == 2
    assert "SEMANTIC_ON" in capsys.readouterr().err


def test_weights_or_a_recipe_are_needed(demo, photos, tmp_path, capsys):
    assert demo.main(["--input", str(photos), "--output", str(tmp_path / "out")]) == 2
    assert "MODEL.WEIGHTS" in capsys.readouterr().err
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("INPUT: {FORMAT: RGB}\n")
    assert demo.main(["--config-file", str(recipe), "--input", str(photos), "--output", str(tmp_path / "out")]) == 2
    assert "recipe.yaml names no weights" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", ["2", "-0.1", "much", "nan"])
def test_thresholds_lie_between_0_and_1(demo, capsys, threshold):
    with pytest.raises(SystemExit):
        demo.parse_args(["--input", "x", "--output", "y", f"--confidence-threshold={threshold}"])
    assert "0 to 1" in capsys.readouterr().err


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small real model with random weights, and its checkpoint as training writes it."""
    from mask2former.modeling import build_model

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "timm/resnet10t"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "MaskFormerHead"
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = "MSDeformAttnPixelDecoder"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = cfg.MODEL.SEM_SEG_HEAD.MASK_DIM = 32
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 1
    cfg.MODEL.META_ARCHITECTURE = "MaskFormer"
    cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"
    cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE = "multi_scale_pixel_decoder"
    cfg.MODEL.MASK_FORMER.HIDDEN_DIM = 32
    cfg.MODEL.MASK_FORMER.DIM_FEEDFORWARD = 32
    cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = 5
    cfg.MODEL.MASK_FORMER.DEC_LAYERS = 2
    cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = True
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
    cfg.INPUT.MIN_SIZE_TEST = 64
    path = tmp_path_factory.mktemp("checkpoint") / "model_final.pth"
    contents = {"model": build_model(cfg, LABELS).state_dict(), "labels": LABELS.to_dict()}
    torch.save({**contents, "config": cfg.dump()}, path)
    return path


def test_a_real_model_from_its_checkpoint_alone(demo, checkpoint, photos, tmp_path, capsys):
    args = ["--input", str(photos / "a.png"), "--output", str(tmp_path / "out"), "--opts", "MODEL.WEIGHTS"]
    assert demo.main([*args, str(checkpoint)]) == 0, capsys.readouterr().err
    assert names(tmp_path / "out") == ["a_instances.png", "a_panoptic.png", "a_semantic.png"]
    assert Image.open(tmp_path / "out" / "a_panoptic.png").size == (60, 40)


def test_a_missing_checkpoint_is_named(demo, photos, tmp_path, capsys):
    args = ["--input", str(photos), "--output", str(tmp_path / "out"), "--opts", "MODEL.WEIGHTS", "no/such.pth"]
    assert demo.main(args) == 2
    assert "such.pth" in capsys.readouterr().err
