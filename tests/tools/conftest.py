"""The scripts of tools/ as modules, and catalogs that each test leaves as they were."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mask2former.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(scope="session")
def tool(repo_dir: Path) -> Callable:
    """Function of a script's name, without suffix, that returns it as a module."""

    def load(name: str):
        folder = str(repo_dir / "tools")
        sys.path.insert(0, folder)  # as Python does for a script
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(folder)

    return load


@pytest.fixture(autouse=True)
def own_catalogs():
    """Every test starts and ends with the catalogs as they were."""
    before = dict(DatasetCatalog._sources), dict(MetadataCatalog._entries)
    yield
    DatasetCatalog._sources, MetadataCatalog._entries = before


@pytest.fixture(scope="session")
def shapes(repo_dir: Path, tmp_path_factory) -> Path:
    """A recipe beside drawn shapes, 6 training and 3 validation pictures of 64x64 pixels.

    Its data sets are `sem_{train,valid}`, `inst_{train,valid}` and `pan_{train,valid}`, with 8, 4 and 8 classes.
    """
    spec = importlib.util.spec_from_file_location("make_shapes_for_tools", repo_dir / "datasets" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path_factory.mktemp("tools") / "shapes"
    module.make(root, train=6, valid=3, size=64)
    recipe = root.parent / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=repo_dir / "configs" / "quickstart" / "semantic.yaml", root=root))
    return recipe


@pytest.fixture(scope="session")
def videos(repo_dir: Path, tmp_path_factory) -> Path:
    """A recipe beside drawn videos, 3 for training and 2 for validation, of 48x64 pixels and 5 classes.

    Its data sets are `vid_{train,valid}`, in the folder `shapes`.
    """
    sys.path.insert(0, str(repo_dir / "datasets"))  # as for a script there
    try:
        make = importlib.import_module("_moving_shapes").make
    finally:
        sys.path.remove(str(repo_dir / "datasets"))
    root = tmp_path_factory.mktemp("videos") / "shapes"
    make(root, train=3, valid=2, size=64)
    recipe = root.parent / "recipe.yaml"
    recipe.write_text(VIDEO_RECIPE.format(base=repo_dir / "configs" / "quickstart" / "Base-Shapes.yaml", root=root))
    return recipe


RECIPE = """
_BASE_: {base}
IMPORTS: []
DATASETS:
  CUSTOM:
    sem: {{TYPE: sem_seg_folder, ROOT: {root}}}
    inst:
      TYPE: coco_instances
      ROOT: {root}
      SPLITS:
        train: {{IMAGES: train/images, ANNOTATIONS: annotations/instances_train.json}}
        valid: {{IMAGES: valid/images, ANNOTATIONS: annotations/instances_valid.json}}
    pan:
      TYPE: coco_panoptic
      ROOT: {root}
      SPLITS:
        train: {{IMAGES: train/images, ANNOTATIONS: annotations/panoptic_train.json, PANOPTIC: panoptic_train}}
        valid: {{IMAGES: valid/images, ANNOTATIONS: annotations/panoptic_valid.json, PANOPTIC: panoptic_valid}}
  TRAIN: [sem_train]
  TEST: [sem_valid]
DATALOADER: {{NUM_WORKERS: 0}}
MODEL: {{DEVICE: cpu}}
"""

VIDEO_RECIPE = """
_BASE_: {base}
IMPORTS: []
DATASETS:
  CUSTOM:
    vid:
      TYPE: ytvis
      ROOT: {root}
      SPLITS:
        train: {{IMAGES: train/JPEGImages, ANNOTATIONS: train.json}}
        valid: {{IMAGES: valid/JPEGImages, ANNOTATIONS: valid.json}}
  TRAIN: [vid_train]
  TEST: [vid_valid]
INPUT: {{CROP: {{ENABLED: False}}, MIN_SIZE_TRAIN: [48], SAMPLING_FRAME_NUM: 3}}
DATALOADER: {{NUM_WORKERS: 0}}
MODEL: {{DEVICE: cpu, META_ARCHITECTURE: VideoMaskFormer}}
"""
