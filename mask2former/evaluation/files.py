"""Result files of evaluators."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(value: Any, path: str | Path) -> None:
    """Write beside the final name and rename, so that an interrupted run leaves no half-written file.

    Args:
        value: what `json.dumps` takes.
        path: the file; its folder is made when absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(value))
    os.replace(beside, path)


def write_unfinished(value: Any, path: Path) -> list[Path]:
    """As `write_json`, of a pass that ended early: beside `path`, as `<name>_unfinished.json`, which is returned."""
    path = path.with_name(f"{path.stem}_unfinished{path.suffix}")
    write_json(value, path)
    return [path]
