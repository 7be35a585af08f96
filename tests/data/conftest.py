"""A tiny semantic data set on disk, and recipes that read it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask2former.config import get_cfg
from mask2former.data import DatasetCatalog, MetadataCatalog, register_datasets

CLASSES = ["left", "right", "box"]


@pytest.fixture(autouse=True)
def own_catalogs():
    """Every test starts and ends with the catalogs as they were."""
    before = dict(DatasetCatalog._sources), dict(MetadataCatalog._entries)
    yield
    DatasetCatalog._sources, MetadataCatalog._entries = before


def _write_pair(folder: Path, stem: str, height: int = 24, width: int = 32, seed: int = 0) -> None:
    """An image whose red channel is 40 times its class id, and the mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 1
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
    mask[top : top + height // 3, left : left + width // 3] = 2
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[:, :, 0] = mask * 40
    for kind, array in (("images", image), ("masks", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{stem}.png")


@pytest.fixture
def write_pair() -> Callable:
    """`_write_pair`, for tests that add files."""
    return _write_pair


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """train with 7 pairs, valid with 5, 24x32 pixels, three classes, no classes.json."""
    for split, count in (("train", 7), ("valid", 5)):
        for i in range(count):
            _write_pair(tmp_path / "tiny" / split, f"{split}{i}", seed=i)
    return tmp_path / "tiny"


@pytest.fixture
def tiny_cfg(tiny_root: Path) -> Callable:
    """Function of KEY, VALUE, ... that returns a recipe over the tiny data set, its data sets registered."""

    def build(*opts):
        cfg = get_cfg()
        cfg.merge_from_list(
            [
                *("DATASETS.CUSTOM", {"tiny": {"ROOT": str(tiny_root), "CLASSES": CLASSES}}),
                *("DATASETS.TRAIN", ["tiny_train"], "DATASETS.TEST", ["tiny_valid"]),
                *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "MODEL.DEVICE", "cpu", "SEED", 3),
                *("SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0, "INPUT.FORMAT", "RGB"),
                *("INPUT.MIN_SIZE_TRAIN", [16, 24, 40], "INPUT.MAX_SIZE_TRAIN", 64, "INPUT.COLOR_AUG_SSD", True),
                *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [16, 20]),
                *("INPUT.SIZE_DIVISIBILITY", 20, "INPUT.MIN_SIZE_TEST", 12, "INPUT.MAX_SIZE_TEST", 64),
                *opts,
            ]
        )
        register_datasets(cfg)
        return cfg

    return build


@pytest.fixture(scope="session")
def drawn_shapes(repo_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shapes data set in all its formats, 4 + 3 pictures of 48x48 pixels; not to be changed."""
    spec = importlib.util.spec_from_file_location("make_shapes", repo_dir / "datasets" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("drawn") / "shapes"
    module.make(root, train=4, valid=3, size=48)
    return root


@pytest.fixture
def shapes_root(drawn_shapes: Path, tmp_path: Path) -> Path:
    """A copy of `drawn_shapes` that a test may change."""
    return Path(shutil.copytree(drawn_shapes, tmp_path / "shapes"))


@pytest.fixture
def edit_json() -> Callable:
    """Function of (path, change) that gives the content of a JSON file to `change` and writes it back."""

    def edit(path: Path, change: Callable[[dict], object]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


@pytest.fixture(scope="session")
def moving_shapes(repo_dir: Path):
    """The script datasets/_moving_shapes.py as a module."""
    sys.path.insert(0, str(repo_dir / "datasets"))  # as for a script there
    try:
        return importlib.import_module("_moving_shapes")
    finally:
        sys.path.remove(str(repo_dir / "datasets"))


@pytest.fixture(scope="session")
def drawn_videos(moving_shapes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of moving shapes, 3 + 2 of 48x64 pixels and 20 to 30 frames; not to be changed."""
    root = tmp_path_factory.mktemp("videos") / "shapes"
    moving_shapes.make(root, train=3, valid=2, size=64)
    return root


@pytest.fixture
def videos_root(drawn_videos: Path, tmp_path: Path) -> Path:
    """A copy of `drawn_videos` that a test may change."""
    return Path(shutil.copytree(drawn_videos, tmp_path / "videos"))


@pytest.fixture
def video_cfg() -> Callable:
    """Function of a folder of videos and KEY, VALUE, ... that returns a recipe over them, its data sets registered."""

    def build(root: Path, *opts):
        splits = {s: {"IMAGES": f"{s}/JPEGImages", "ANNOTATIONS": f"{s}.json"} for s in ("train", "valid")}
        cfg = get_cfg()
        cfg.merge_from_list(
            [
                *("DATASETS.CUSTOM", {"vid": {"TYPE": "ytvis", "ROOT": str(root), "SPLITS": splits}}),
                *("DATASETS.TRAIN", ["vid_train"], "DATASETS.TEST", ["vid_valid"]),
                *("MODEL.META_ARCHITECTURE", "VideoMaskFormer", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5),
                *("MODEL.DEVICE", "cpu", "SEED", 3, "SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0),
                *("INPUT.FORMAT", "RGB", "INPUT.MIN_SIZE_TRAIN", [24, 48], "INPUT.MIN_SIZE_TEST", 24),
                *opts,
            ]
        )
        register_datasets(cfg)
        return cfg

    return build
