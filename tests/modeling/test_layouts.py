"""Tensor names, shapes and parameter counts of published checkpoints."""

import json

import pytest
import torch

from mask2former.config import load_cfg
from mask2former.modeling import build_model

# published families whose recipes are all here -> (folder below configs/, number of models)
FAMILIES = {
    "mask2former": ("", 47),
    "mask2former_video": ("", 12),
    "dinat": ("", 8),
    "maskformer": ("maskformer", 30),
}


@pytest.fixture(scope="module")
def book(shared_dir):
    return json.loads((shared_dir / "reference" / "state_dicts.json").read_text())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_recipe_has_the_published_tensors(book, repo_dir, family):
    folder, count = FAMILIES[family]
    assert len(book["recipes"][family]) == count
    for recipe, entry in book["recipes"][family].items():
        cfg = load_cfg(str(repo_dir / "configs" / folder / recipe), ["MODEL.DEVICE", "meta"])
        with torch.device("meta"):
            model = build_model(cfg)
        got = {name: list(t.shape) for name, t in model.state_dict().items()}
        assert got == book["layouts"][entry["layout"]], recipe
        assert sum(p.numel() for p in model.parameters()) == entry["params"], recipe
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == entry["trainable"], recipe
