"""The files that a recipe consists of: itself, and what its `_BASE_` names."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mask2former.config import values
from mask2former.config.reader import Entry, read_file
from mask2former.utils.errors import UserError

BASE_KEY = "_BASE_"
_SUGGESTED = 3  # recipes named in the message about a missing one
CONFIGS = Path(__file__).resolve().parents[2] / "configs"  # the published recipes, where the package is a checkout


def chain(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Entry]]]:
    """The files a recipe consists of, deepest base first, each with its own entries.

    Raises:
        UserError: a file cannot be read, is missing, or is its own base.
    """
    resolved = path.resolve()
    if resolved in above:
        loop = " -> ".join(str(p) for p in (*above[above.index(resolved) :], resolved))
        raise UserError(f"{above[-1]}: the {BASE_KEY} chain closes on itself: {loop}. Take one link out.")
    entries = read_file(path)
    base = entries.pop(BASE_KEY, None)
    if base is not None:
        names = base.value if isinstance(base.value, list) else [base.value]
        for name in names:
            yield from chain(_base_path(name, path, base.source), (*above, resolved))
    yield path, entries


def _base_path(name: Any, path: Path, source: str) -> Path:
    if not isinstance(name, str):
        raise UserError(
            f"{source}: {BASE_KEY} is {name!r} ({values.type_name(name)}), expected the path of a YAML file."
        )
    base = path.parent / Path(name).expanduser()
    if not base.is_file():
        near = _nearest_recipes(base, path)
        hint = f" Nearest recipes that exist: {', '.join(near)}." if near else ""
        raise UserError(f"{source}: {BASE_KEY} names {name!r}, but there is no file {base}.{hint}")
    return base


def _nearest_recipes(missing: Path, recipe: Path) -> list[str]:
    """Existing recipes with file names like that of `missing`, best first, written as `recipe` can name them."""
    own, found = recipe.resolve(), set()
    for folder in (recipe.parent, missing.parent, Path("configs"), CONFIGS):
        found.update(path.resolve() for path in folder.rglob("*.y*ml"))  # an absent folder holds none

    def likeness(path: Path) -> tuple[float, str]:
        return -difflib.SequenceMatcher(None, missing.stem.lower(), path.stem.lower()).ratio(), str(path)

    nearest = sorted(found - {own}, key=likeness)[:_SUGGESTED]
    return [min(str(path), os.path.relpath(path, own.parent), key=len) for path in nearest]
