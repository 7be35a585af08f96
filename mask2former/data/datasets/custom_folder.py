"""Entries of DATASETS.CUSTOM with semantic folders: <split>/images and <split>/masks below one root."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mask2former.data.catalog import default_ignore_label
from mask2former.data.datasets.folder import SemSegFolder, register_folder
from mask2former.structures.labels import LabelSet, is_color
from mask2former.utils.errors import UserError

SPLITS = ("train", "valid", "val", "test")  # folder names looked for below the root


def register_folders(name: str, root: Path, entry: Mapping) -> None:
    """Register `<name>_<split>` for each of SPLITS; one whose folder is absent says so when it is used.

    Args:
        name: key of the entry.
        root: its ROOT.
        entry: CLASSES and IGNORE_LABEL. Without CLASSES, `classes.json` in the root names them: a list of names, or an
            object with "classes" and, if wanted, "ignore_label" and "colors" (RGB per class).

    Raises:
        UserError: no split folder in the root, or no class names.
    """
    if not any((root / split).is_dir() for split in SPLITS):
        raise UserError(
            f"The folder {root} of data set {name!r} has none of the folders {', '.join(SPLITS)} (current folder: "
            f"{Path.cwd()}). Expected train/images, train/masks, valid/images, valid/masks in it. Correct "
            f"DATASETS.CUSTOM.{name}.ROOT."
        )
    labels = _labels(name, root, entry)
    for split in SPLITS:
        folders = SemSegFolder(str(root / split / "images"), str(root / split / "masks"))
        register_folder(f"{name}_{split}", folders, labels)


def _labels(name: str, root: Path, entry: Mapping) -> LabelSet:
    """Names, colours and ignore value; what the recipe says goes before what classes.json says."""
    path = root / "classes.json"
    stored = _read_classes(path) if path.is_file() else {}
    names = entry.get("CLASSES") or stored.get("classes")
    where = f"DATASETS.CUSTOM.{name}.CLASSES" if entry.get("CLASSES") else str(path)
    if not names:
        raise UserError(
            f"Data set {name!r} has no class names. List them under DATASETS.CUSTOM.{name}.CLASSES, or write {path}: "
            '["road", "tree", ...].'
        )
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise UserError(f"{where} must be a list of class names in the order of their ids; got {names!r}.")
    twice = sorted({n for n in names if list(names).count(n) > 1})
    if twice:
        raise UserError(f"{where} names {', '.join(twice)} more than once; class names must differ.")
    ignore = entry.get("IGNORE_LABEL", stored.get("ignore_label", default_ignore_label(len(names))))
    colors = () if entry.get("CLASSES") and list(names) != stored.get("classes") else stored.get("colors") or ()
    if colors and not (isinstance(colors, list) and len(colors) == len(names) and all(map(is_color, colors))):
        raise UserError(f"{path} has the colors {colors} for {len(names)} classes; give one [r, g, b] per class.")
    return LabelSet(tuple(names), colors=tuple(tuple(c) for c in colors), ignore_label=ignore)


def _read_classes(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}).") from error
    if isinstance(content, list):
        return {"classes": content}
    known = ("classes", "ignore_label", "colors")
    if not isinstance(content, dict) or "classes" not in content or set(content) - set(known):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f'{path} must hold a list of class names, or {{"classes": [...], "ignore_label": 255, "colors": [...]}}; '
            f"found {found}."
        )
    return content
