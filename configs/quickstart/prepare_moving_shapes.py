"""User module of the quickstart recipe for videos (IMPORTS): draws videos of moving shapes where they are absent.

As `prepare_shapes.py` does for pictures.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_SCRIPTS = str(Path(__file__).resolve().parents[2] / "datasets")

sys.path.insert(0, _SCRIPTS)  # as for a script there: it imports its neighbour
try:
    importlib.import_module("_moving_shapes").ensure("datasets/shapes_video")
finally:
    sys.path.remove(_SCRIPTS)
