"""Tensor names, shapes and parameter counts of published checkpoints."""

import json

import pytest
import torch

from mask2former.config import load_cfg
from mask2former.modeling import build_model


@pytest.fixture(scope="module")
def book(shared_dir):
    return json.loads((shared_dir / "reference" / "state_dicts.json").read_text())


def test_every_resnet_recipe_has_the_published_tensors(book, repo_dir):
    for recipe in (name for name in book["recipes"]["mask2former"] if "/swin/" not in name):
        cfg = load_cfg(str(repo_dir / "configs" / recipe), ["MODEL.DEVICE", "meta"])
        with torch.device("meta"):
            model = build_model(cfg)
        entry = book["recipes"]["mask2former"][recipe]
        got = {name: list(t.shape) for name, t in model.state_dict().items()}
        assert got == book["layouts"][entry["layout"]], recipe
        assert sum(p.numel() for p in model.parameters()) == entry["params"], recipe
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == entry["trainable"], recipe
