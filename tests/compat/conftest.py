"""User code for the tests of compat: aliases that are gone after a test, a stand-in for the real detectron2."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask2former.compat.importer import remove_aliases
from mask2former.data import DatasetCatalog, MetadataCatalog


@pytest.fixture(autouse=True)
def as_before():
    """Catalogs, aliases and modules as they were."""
    sources, entries, modules = DatasetCatalog.list(), MetadataCatalog.list(), set(sys.modules)
    consulted = [*DatasetCatalog._consulted], [*MetadataCatalog._consulted]
    yield
    remove_aliases()
    DatasetCatalog._consulted, MetadataCatalog._consulted = consulted
    for catalog, known in ((DatasetCatalog, sources), (MetadataCatalog, entries)):
        for name in set(catalog.list()) - set(known):
            catalog.remove(name)
    for name in set(sys.modules) - modules:
        if name.startswith("detectron2"):
            del sys.modules[name]


@pytest.fixture
def two_folders(tmp_path) -> Path:
    """A root with the tutorial's data set in it: two training images, one for validation, 700x900 and smaller."""
    rng = np.random.default_rng(0)
    for split, sizes in (("train", [(700, 900), (300, 200)]), ("valid", [(40, 50)])):
        for i, (height, width) in enumerate(sizes):
            mask = np.zeros((height, width), np.uint8)
            mask[height // 4 : height // 2, width // 4 : width // 2] = 1
            image = rng.integers(0, 40, (height, width, 3), np.uint8) + 200 * mask[:, :, None]
            for kind, array, ext in (("images", image, "jpg"), ("masks", mask, "png")):
                folder = tmp_path / "your_dataset_name" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / f"{i}.{ext}", quality=95)
    return tmp_path


_STUB = {
    "__init__.py": "",
    "data.py": """
class Metadata:
    def __init__(self, **values):
        self.__dict__.update(values)
    def as_dict(self):
        return dict(self.__dict__)

class _Catalog(dict):
    def register(self, name, func):
        self[name] = func
    def get(self, name):
        return self[name]()
    def list(self):
        return list(self)

class _Metadata(dict):
    def get(self, name):
        return self.setdefault(name, Metadata(name=name))

DatasetCatalog, MetadataCatalog = _Catalog(), _Metadata()
DatasetCatalog.register("theirs_train", lambda: [{"file_name": "a.jpg"}])
MetadataCatalog["theirs_train"] = Metadata(
    name="theirs_train", thing_classes=["cat"], stuff_classes=["cat", "sky"], evaluator_type="coco_panoptic_seg",
    thing_dataset_id_to_contiguous_id={1: 0}, stuff_dataset_id_to_contiguous_id={1: 0, 2: 1},
)
""",
    "config.py": """
from yacs.config import CfgNode as _Node

class CfgNode(_Node):
    pass

def get_cfg():
    return CfgNode({
        "VERSION": 2, "OUTPUT_DIR": "x", "MODEL": {"META_ARCHITECTURE": "GeneralizedRCNN", "DEVICE": "cpu",
        "RPN": {"NMS_THRESH": 0.7}, "BACKBONE": {"NAME": "build_resnet_backbone", "FREEZE_AT": 2}, "OTHER": 3},
        "DATASETS": {"TRAIN": ("theirs_train",), "TEST": ()},
    })
""",
    "modeling.py": """
from fvcore.common.registry import Registry
META_ARCH_REGISTRY = Registry("META_ARCH")

def build_model(cfg):
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
""",
}


@pytest.fixture
def stub_detectron2(tmp_path, monkeypatch) -> Path:
    """A package `detectron2` that can be imported: catalogs, a registry and a config, as the real one has them."""
    folder = tmp_path / "site" / "detectron2"
    folder.mkdir(parents=True)
    for name, text in _STUB.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder
