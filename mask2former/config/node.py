"""The config object, and how a recipe becomes one: defaults, then the `_BASE_` chain, the file, the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as _YacsNode

from mask2former.config import compat, values
from mask2former.config.defaults import DEFAULTS, OPEN_SECTIONS
from mask2former.config.reader import Entry, dump_yaml, read_file
from mask2former.utils.errors import UserError
from mask2former.utils.imports import resolve_python_file
from mask2former.utils.text import nearest

BASE_KEY = "_BASE_"
_COMMAND_LINE = "command line"


class CfgNode(_YacsNode):
    """yacs's node (attribute access, `freeze`, `defrost`, `clone`) with our own, stricter ways in.

    Keys come from `get_cfg`; merging changes their values and never adds any, except in sections that are open.
    """

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Take over the values of a YAML file, those of its `_BASE_` chain first.

        Raises:
            UserError: see `load_cfg`.
        """
        self._refuse_when_frozen()
        ignored: list[str] = []
        for path, entries in _chain(Path(cfg_filename).expanduser()):
            _merge(self, entries, path.parent, ignored)
        compat.announce_ignored(ignored)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Take over KEY VALUE pairs from a flat list, as the command line gives them.

        Raises:
            UserError: see `load_cfg`.
        """
        self._refuse_when_frozen()
        if len(cfg_list) % 2:
            raise UserError(
                f"{_COMMAND_LINE}: {cfg_list[-1]!r} stands alone; give pairs KEY VALUE, separated by spaces, such as "
                "SOLVER.MAX_ITER 1000."
            )
        ignored: list[str] = []
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            _set(self, tuple(str(key).split(".")), Entry(value, _COMMAND_LINE), Path.cwd(), ignored)
        compat.announce_ignored(ignored)

    def dump(self, **kwargs: Any) -> str:
        """YAML text of all keys; `load_cfg` reads an equal config from it."""
        return dump_yaml(_plain(self))

    def _refuse_when_frozen(self) -> None:
        if self.is_frozen():
            raise AttributeError("The config is frozen; call defrost() on it, or change a clone().")


def get_cfg() -> CfgNode:
    """A new config with every key at its default."""
    return CfgNode(DEFAULTS)  # copies


def load_cfg(config_file: str | Path, opts: Sequence[Any] = ()) -> CfgNode:
    """The config of a recipe.

    Args:
        config_file: YAML file; `_BASE_` in it names the file (or list of files) it builds on, relative to itself.
        opts: flat list KEY, VALUE, KEY, VALUE ... that has the last word; texts are decoded.

    User modules under `IMPORTS` are not imported here; their paths are made absolute.

    Raises:
        UserError: a file cannot be read or is no plain YAML; an unknown key (with the nearest known one), a value of
            another type than the default's, a `_BASE_` chain that closes on itself. The message starts with the file
            and line, or with "command line".
    """
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    return cfg


def _chain(path: Path, above: tuple[Path, ...] = ()) -> Iterator[tuple[Path, dict[str, Entry]]]:
    """The files a recipe consists of, deepest base first, each with its own entries."""
    resolved = path.resolve()
    if resolved in above:
        loop = " -> ".join(str(p) for p in (*above[above.index(resolved) :], resolved))
        raise UserError(f"{above[-1]}: the {BASE_KEY} chain closes on itself: {loop}. Take one link out.")
    entries = read_file(path)
    base = entries.pop(BASE_KEY, None)
    if base is not None:
        names = base.value if isinstance(base.value, list) else [base.value]
        for name in names:
            yield from _chain(_base_path(name, path, base.source), (*above, resolved))
    yield path, entries


def _base_path(name: Any, path: Path, source: str) -> Path:
    if not isinstance(name, str):
        raise UserError(
            f"{source}: {BASE_KEY} is {name!r} ({values.type_name(name)}), expected the path of a YAML file."
        )
    base = path.parent / Path(name).expanduser()
    if not base.is_file():
        raise UserError(f"{source}: {BASE_KEY} names {name!r}, but there is no file {base}.")
    return base


def _merge(cfg: CfgNode, entries: Mapping[str, Entry], folder: Path, ignored: list[str], at: tuple = ()) -> None:
    for key, entry in entries.items():
        _set(cfg, (*at, *_split(key, at)), entry, folder, ignored)


def _split(key: str, at: tuple[str, ...]) -> tuple[str, ...]:
    """Dotted keys ("MODEL.WEIGHTS: x") also work in files; below an open section a dot is part of the name."""
    return (key,) if at in OPEN_SECTIONS else tuple(key.split("."))


def _set(cfg: CfgNode, path: tuple[str, ...], entry: Entry, folder: Path, ignored: list[str]) -> None:
    """Put the value or mapping `entry` at `path`."""
    name = ".".join(path)
    if compat.is_ignored(name):
        ignored.append(name)
        return
    if any(path[: len(section)] == section for section in OPEN_SECTIONS):
        _set_open(cfg, path, entry)
        return
    parent = _at(cfg, path[:-1])
    if not isinstance(parent, CfgNode) or path[-1] not in parent:
        raise UserError(f"{entry.source}: unknown key {name}.{_nearest_key(cfg, name)}")
    if isinstance(parent[path[-1]], CfgNode):
        children = _as_entries(entry)
        if not isinstance(children, Mapping):
            raise UserError(
                f"{entry.source}: {name} is {entry.value!r} ({values.type_name(entry.value)}), but it is a section of "
                f"keys: {', '.join(parent[path[-1]])}."
            )
        _merge(cfg, children, folder, ignored, path)
        return
    default = _default(path, parent[path[-1]])
    if isinstance(entry.value, Mapping):
        raise UserError(
            f"{entry.source}: {name} is a section of keys, but {values.type_name(default)} is expected, as in the "
            f"default {default!r}."
        )
    value = values.fit(entry.value, default, name, entry.source, as_text=_is_word(entry))
    parent[path[-1]] = _absolute_imports(value, folder) if name == "IMPORTS" else value


def _default(path: tuple[str, ...], current: Any) -> Any:
    """The default at `path`, which says what fits there; for keys that a program added, their current value."""
    value: Any = DEFAULTS
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return current
        value = value[key]
    return value


def _is_word(entry: Entry) -> bool:
    return entry.source == _COMMAND_LINE and isinstance(entry.value, str)


def _set_open(cfg: CfgNode, path: tuple[str, ...], entry: Entry) -> None:
    """As `_set`, in a section whose keys the recipe names: mappings are merged, other values replaced."""
    entry = Entry(_as_entries(entry), entry.source)
    if isinstance(entry.value, Mapping):
        _open_node(cfg, path)
        for key, child in entry.value.items():
            _set_open(cfg, (*path, key), child)
    elif path in OPEN_SECTIONS:
        raise UserError(
            f"{entry.source}: {'.'.join(path)} is {entry.value!r}, but it is a section: NAME: {{KEY: VALUE}}."
        )
    else:
        value = values.decode(entry.value) if _is_word(entry) else entry.value
        _open_node(cfg, path[:-1])[path[-1]] = values.lists(value)


def _open_node(cfg: CfgNode, path: tuple[str, ...]) -> CfgNode:
    """The section at `path`, made where it is not there yet."""
    node = cfg
    for key in path:
        if not isinstance(node.get(key), CfgNode):
            node[key] = CfgNode()
        node = node[key]
    return node


def _as_entries(entry: Entry) -> Any:
    """The entry's value; a mapping written on the command line becomes one of entries, as in files."""
    value = values.decode(entry.value) if _is_word(entry) else entry.value
    if isinstance(value, Mapping):
        return {str(k): v if isinstance(v, Entry) else Entry(v, entry.source) for k, v in value.items()}
    return entry.value


def _at(cfg: CfgNode, path: tuple[str, ...]) -> Any:
    """What stands at `path`; None where nothing does."""
    node: Any = cfg
    for key in path:
        node = node.get(key) if isinstance(node, CfgNode) else None
    return node


def _nearest_key(cfg: CfgNode, name: str) -> str:
    """The nearest known key, always one. A last word that is nearly right counts more than the section it is in."""
    known = list(_names(cfg))
    by_word: dict[str, list[str]] = {}
    for key in known:
        by_word.setdefault(key.rpartition(".")[2], []).append(key)
    word = nearest(name.rpartition(".")[2], by_word, cutoff=0.8)
    return f" Did you mean {nearest(name, by_word.get(word, known), cutoff=0.0)!r}?"


def _names(node: CfgNode, prefix: str = "") -> Iterator[str]:
    """The dotted names of all keys and sections."""
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _names(value, f"{prefix}{key}.")


def _absolute_imports(entries: list, folder: Path) -> list:
    """Paths of .py files made absolute where they are found; the importer tells about those that are not."""
    found = [resolve_python_file(e, folder) if isinstance(e, str) and e.endswith(".py") else None for e in entries]
    return [entry if path is None else str(path) for entry, path in zip(entries, found, strict=True)]


def _plain(value: Any) -> Any:
    """Nodes as dicts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
