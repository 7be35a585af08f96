"""User code named by a recipe: the modules under `IMPORTS`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from mask2former.utils.errors import UserError

_PACKAGE = str(Path(__file__).resolve().parents[1])


def resolve_python_file(entry: str, relative_to: Path | None) -> Path | None:
    """Where the `.py` file called `entry` lies: in the folder `relative_to`, else in the current one; None: nowhere."""
    path = Path(entry).expanduser()
    folders = ([relative_to] if relative_to is not None else []) + [Path.cwd()]
    for folder in folders:
        candidate = folder / path  # an absolute path stays as it is
        if candidate.is_file():
            return candidate.resolve()
    return None


def import_user_modules(names: Sequence[str], relative_to: Path | None = None) -> None:
    """Import each entry once per process, in order, for what it registers.

    Args:
        names: module names ("my_package.datasets") or paths that end in ".py".
        relative_to: folder that relative paths start from, usually that of the YAML; then the current folder.

    Raises:
        UserError: an entry is not found, or raises while it is imported; the message names it.
    """
    for entry in map(str, names):
        if entry.endswith(".py"):
            _import_file(entry, relative_to)
        else:
            _import_name(entry)


def _import_name(entry: str) -> None:
    if not all(part.isidentifier() for part in entry.split(".")):
        raise UserError(f"IMPORTS: {entry!r} is neither a module name (a.b.c) nor a path that ends in .py.")
    try:
        importlib.import_module(entry)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{entry}.".startswith(f"{error.name}."):
            raise _failure(entry, error) from error  # found, but something it imports is missing
        raise UserError(
            f"IMPORTS: no module named {entry!r}. Install it, add its folder to PYTHONPATH, or give the path of a "
            ".py file instead."
        ) from error
    except Exception as error:
        raise _failure(entry, error) from error


def _import_file(entry: str, relative_to: Path | None) -> None:
    path = resolve_python_file(entry, relative_to)
    if path is None:
        places = " or ".join(str(folder) for folder in dict.fromkeys([relative_to or Path.cwd(), Path.cwd()]))
        raise UserError(f"IMPORTS: no file {entry!r} in {places}. Correct the path under IMPORTS.")
    # the digest keeps two files of one name apart, and a second import of one file from running it again
    name = f"{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failure(entry, error) from error


def _failure(entry: str, error: Exception) -> UserError:
    """What went wrong inside a user's module, with the place, since the programs print no traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(("<frozen ", _PACKAGE))]
    place = (theirs or frames)[-1]  # a mistake that this package tells was made where it was called
    if isinstance(error, SyntaxError):  # its place is not on the stack
        where = f"{error.filename}, line {error.lineno}"
    else:
        where = f"{place.filename}, line {place.lineno}"
    return UserError(f"IMPORTS: {entry!r} failed with {type(error).__name__}: {error} ({where}).")
