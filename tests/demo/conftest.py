"""demo.py as a module."""

import importlib
import sys

import pytest


@pytest.fixture(scope="session")
def demo(repo_dir):
    folder = str(repo_dir / "demo")
    sys.path.insert(0, folder)  # as Python does for a script
    try:
        return importlib.import_module("demo")
    finally:
        sys.path.remove(folder)
