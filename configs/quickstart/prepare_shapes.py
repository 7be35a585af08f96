"""User module of the quickstart recipes (IMPORTS): draws the shapes data set where it is absent.

`ROOT` of the recipes is relative to the folder that training starts in, and so is the folder drawn here. Every
process of a run may come here at once: a drawn data set appears in one piece, and the first one stays.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "make_shapes.py"


def _make_shapes():
    """The module datasets/make_shapes.py, which belongs to no package."""
    spec = importlib.util.spec_from_file_location("make_shapes", _SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_make_shapes().ensure("datasets/shapes")
