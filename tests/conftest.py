"""Shared by all tests. One thread per process, set before torch reads it, so that workers do not fight for cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from mask2former.utils import comm

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def same_numbers_every_run(monkeypatch: pytest.MonkeyPatch):
    """Every test starts from the same random state, whatever ran before it; so do runs whose recipe leaves SEED open.

    A crop that happens to hold no object would fail a test once in a hundred runs, on somebody else's machine.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 0)


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The root of the repository."""
    return REPO


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference facts and real samples beside the repository; tests that need it skip without it."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"reference folder {folder} is not on this machine")
    return folder
