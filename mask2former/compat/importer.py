"""Modules of detectron2 and mask2former_video, made of our objects where the real packages are not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mask2former.compat.aliases import ALIASES
from mask2former.utils.text import suggest

_ROOT = "detectron2"
_ROOTS = {name for name in ALIASES if "." not in name}


class _AliasFinder(MetaPathFinder, Loader):
    """Python's import system asks it first, once it is known that the real detectron2 is nowhere.

    First, since a folder named detectron2 without a package in it, such as a clone in the current folder, would be
    found as a namespace. A user's own mask2former_video goes before ours.
    """

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        root = fullname.partition(".")[0]
        if root not in _ROOTS or (root != _ROOT and _is_there(root)):
            return None
        if fullname in ALIASES:
            return ModuleSpec(fullname, self, is_package=True)
        raise ModuleNotFoundError(_absent(*fullname.rpartition(".")[::2]), name=root)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        root = spec.name.partition(".")[0]
        return ModuleType(spec.name, f"Names of {spec.name} for user modules; {root} itself is not installed.")

    def exec_module(self, module: ModuleType) -> None:
        module.__all__ = _names(module.__name__)
        module.__getattr__ = _getter(module)


_FINDER = _AliasFinder()


def _is_there(root: str) -> bool:
    """Whether Python finds a package, not a bare folder, of this name without us; also one installed as editable."""
    others = (finder for finder in sys.meta_path if finder is not _FINDER and hasattr(finder, "find_spec"))
    spec = next(filter(None, (finder.find_spec(root, None) for finder in others)), None)
    return spec is not None and spec.origin is not None


def real_detectron2() -> bool:
    """Whether the real detectron2 can be imported."""
    module = sys.modules.get(_ROOT)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(_ROOT)
    if spec is None:
        return module is not None
    return spec.loader is not _FINDER and spec.origin is not None  # a bare folder has no origin


def install_aliases() -> bool:
    """Let `import detectron2...` give this package's objects from now on, unless the real one is installed.

    Returns:
        whether the names are aliases. Calling it again changes nothing.
    """
    if real_detectron2():
        return False
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    return True


def remove_aliases() -> None:
    """Undo `install_aliases`; what has been imported stays where it was imported to."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    for name in [name for name, module in sys.modules.items() if getattr(module, "__loader__", None) is _FINDER]:
        del sys.modules[name]


def _getter(module: ModuleType) -> Callable[[str], Any]:
    """The module's `__getattr__`: looks a name up once, and then keeps it in the module."""

    def get(name: str) -> Any:
        if f"{module.__name__}.{name}" in ALIASES:
            return importlib.import_module(f"{module.__name__}.{name}")
        if name.startswith("__") or name not in module.__all__:
            raise AttributeError(_absent(module.__name__, name), name=name, obj=module)
        value = _resolve(module.__name__, name)
        setattr(module, name, value)
        return value

    return get


def _resolve(module: str, name: str) -> Any:
    names = ALIASES[module]
    source, _, attribute = names.get(name, names.get("*", "")).partition(":")
    return getattr(importlib.import_module(source), name if attribute == "*" else attribute)


def _names(module: str) -> list[str]:
    """What exists in an alias module."""
    names = ALIASES[module]
    if "*" not in names:
        return sorted(names)
    source = importlib.import_module(names["*"].removesuffix(":*"))
    listed = getattr(source, "__all__", None)
    own = (n for n, v in vars(source).items() if getattr(v, "__module__", "") == source.__name__ and n[0] != "_")
    return sorted(listed or own)


def _absent(module: str, name: str) -> str:
    """The message about a name of these packages that has no counterpart."""
    if module in ALIASES:
        children = [key.rpartition(".")[2] for key in ALIASES if key.rpartition(".")[0] == module]
        here, known = module, sorted({*_names(module), *children})
    else:
        here, known = "modules", sorted(ALIASES)
    root = module.partition(".")[0]
    return (
        f"{module}.{name} is not available: {root} is not installed, and of its names this package offers a few to "
        f"user modules.{suggest(name, known)} Here ({here}): {', '.join(known)}."
    )
