"""Published checkpoints by their short names: the file from the cache, the recipe from `configs/`."""

import numpy as np
import pytest
import torch

from mask2former.checkpoint import zoo as zoo_module
from mask2former.checkpoint.formats.mmdetection import MMDETECTION_3
from mask2former.checkpoint.zoo import find_model
from mask2former.config import load_cfg
from mask2former.inference import Predictor, checkpoint_config
from mask2former.modeling import build_model
from mask2former.utils.errors import UserError


@pytest.fixture(scope="module")
def r50(repo_dir):
    """Weights of COCO panoptic's R50, random ones."""
    recipe = repo_dir / "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    return build_model(load_cfg(recipe, ["MODEL.DEVICE", "cpu"])).state_dict()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A function that puts contents where the file of a short name is kept; its hash counts as right."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(zoo_module, "_check_digits", lambda *args: None)

    def put(name, contents):
        path = find_model(name).cached
        path.parent.mkdir(parents=True)
        torch.save(contents, path)

    return put


def test_of_mmdetection(cached, r50, repo_dir):
    cached("coco/panoptic/R50-mmdet", {"meta": {}, "state_dict": MMDETECTION_3.from_ours(r50)})
    predictor = Predictor("zoo://coco/panoptic/R50-mmdet", device="cpu")
    assert predictor.labels.names[0] == "person" and len(predictor.labels.names) == 133
    loaded = predictor.model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in r50.items())
    predictor.model.forward = lambda inputs: [{"size": tuple(inputs[0]["image"].shape)}]
    assert predictor(np.zeros((480, 640, 3), np.uint8)) == {"size": (3, 800, 1067)}  # as mmdetection's test images


def test_of_mask2former_with_a_change(cached, r50):
    cached("coco/panoptic/R50", {"model": r50, "__author__": "somebody"})
    cfg = checkpoint_config("zoo://coco/panoptic/R50", ["INPUT.MIN_SIZE_TEST", 480])
    assert cfg.MODEL.WEIGHTS == "zoo://coco/panoptic/R50" and cfg.INPUT.MIN_SIZE_TEST == 480
    assert cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON  # the published recipe, not mmdetection's


def test_without_the_recipes_the_way_out_is_told(cached, monkeypatch, tmp_path):
    cached("coco/panoptic/R50", {"model": {"a": torch.zeros(1)}})
    monkeypatch.setattr(zoo_module, "CONFIGS", tmp_path / "configs")
    with pytest.raises(UserError, match=r"maskformer2_R50_bs16_50ep.yaml.* installed package .*--config-file FILE"):
        Predictor("zoo://coco/panoptic/R50")
