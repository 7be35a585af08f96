"""Preparation scripts as modules, and the small files that they read."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from mask2former.data import DatasetCatalog, MetadataCatalog, register_builtin


@pytest.fixture
def script(repo_dir, monkeypatch) -> Callable[[str], ModuleType]:
    """Function of a script's name, without suffix, that returns its module."""
    monkeypatch.syspath_prepend(str(repo_dir / "datasets"))
    return importlib.import_module


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Function of a path and pixels (an array, or one value for 8x8 pixels) that writes them and their folder."""

    def write(path: Path, pixels: np.ndarray | int | tuple) -> Path:
        array = np.asarray(pixels, np.uint8)
        if array.ndim < 2:
            array = np.broadcast_to(array, (8, 8, *array.shape)).copy()
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    return write


@pytest.fixture
def read() -> Callable[[Path], np.ndarray]:
    """Function that returns the stored pixels of an image file."""
    return lambda path: np.array(Image.open(path))


@pytest.fixture
def untouched() -> Callable[[Path], dict]:
    """Function of a folder that returns its files with their times of change and sizes."""
    return lambda root: {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def published(monkeypatch) -> Callable[[Path], None]:
    """Function that registers the published data sets below a root, until the test ends."""

    def register(root: Path) -> None:
        for catalog, kept in ((DatasetCatalog, "_sources"), (MetadataCatalog, "_entries")):
            monkeypatch.setattr(catalog, kept, dict(getattr(catalog, kept)))
        register_builtin(root)

    return register
