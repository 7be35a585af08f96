"""Result files of evaluators."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(value: Any, path: str | Path) -> None:
    """Write beside the final name and rename, so that an interrupted run leaves no half-written file.

    What `write_unfinished` wrote of an earlier pass is removed.

    Args:
        value: what `json.dumps` takes.
        path: the file; its folder is made when absent.
    """
    path = Path(path)
    _write(value, path)
    remove_unfinished(path)


def write_unfinished(value: Any, path: Path) -> list[Path]:
    """As `write_json`, of a pass that ended early: beside `path`, as `<name>_unfinished.json`, which is returned."""
    path = _unfinished(path)
    _write(value, path)
    return [path]


def remove_unfinished(path: Path) -> None:
    """Remove what `write_unfinished` wrote beside `path`, if it is there."""
    _unfinished(path).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.stem}_unfinished{path.suffix}")


def _write(value: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(value))
        os.replace(beside, path)
    except BaseException:  # a full disk gets its room back
        beside.unlink(missing_ok=True)
        raise
