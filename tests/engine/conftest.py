"""Makes `toys` importable here and, since they inherit the path, in the processes that tests start."""

import logging
import sys
from pathlib import Path

import pytest

from mask2former.data import DatasetCatalog, MetadataCatalog

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch):
    """Runs register data sets and take the logger over: of the process, which other tests share."""
    monkeypatch.setattr(DatasetCatalog, "_sources", dict(DatasetCatalog._sources))
    monkeypatch.setattr(MetadataCatalog, "_entries", dict(MetadataCatalog._entries))
    monkeypatch.setattr(logging.getLogger("mask2former"), "propagate", True)
