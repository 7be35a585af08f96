"""Shared by all tests. One thread per process, set before torch reads it, so that workers do not fight for cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


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
