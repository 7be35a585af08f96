"""The recipes for own data in ADVANCED_USAGE.md fit data laid out as the pages say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from mask2former.config import load_cfg
from mask2former.data import DatasetCatalog, MetadataCatalog, build_train_loader, check_datasets, register_datasets
from mask2former.data.datasets.build import infer_num_classes
from mask2former.evaluation import build_evaluators

SMALL = ["SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "INPUT.IMAGE_SIZE", 64]


@pytest.fixture(autouse=True)
def own_catalogs():
    """Every test starts and ends with the catalogs as they were."""
    before = dict(DatasetCatalog._sources), dict(MetadataCatalog._entries)
    yield
    DatasetCatalog._sources, MetadataCatalog._entries = before


@pytest.mark.parametrize(
    "heading, number, num_classes, evaluators",
    [
        ("## Own data", 0, 8, ["SemSegEvaluator"]),
        ("## Own data", 1, 5, ["InstanceEvaluator"]),
        ("## Own data", 2, 8, ["PanopticEvaluator", "InstanceEvaluator", "SemSegEvaluator"]),
        ("## Choosing a recipe", 0, 5, ["InstanceEvaluator"]),
    ],
)
def test_recipes_fit_their_data(
    heading: str,
    number: int,
    num_classes: int,
    evaluators: list[str],
    tmp_path: Path,
    repo_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    section: Callable,
    blocks: Callable,
    make_shapes: ModuleType,
):
    text = [block.text for block in blocks(section("ADVANCED_USAGE.md", heading)) if block.language == "yaml"][number]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(repo_dir / "configs")
    (tmp_path / "recipe.yaml").write_text(text)
    make_shapes.make(Path("datasets/my_data"), train=3, valid=2, size=64)
    cfg = load_cfg("recipe.yaml", SMALL)
    register_datasets(cfg)
    infer_num_classes(cfg)
    check_datasets(cfg)
    assert num_classes == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    samples = next(build_train_loader(cfg))
    assert len(samples) == 2 and all(len(sample["instances"]) for sample in samples)
    (name,) = cfg.DATASETS.TEST
    assert [type(e).__name__ for e in build_evaluators(cfg, name, tmp_path)] == evaluators
