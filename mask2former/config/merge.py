"""How the entries of one file, or of the command line, change a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mask2former.config import compat, foreign, values
from mask2former.config.defaults import DEFAULTS, OPEN_SECTIONS
from mask2former.config.reader import Entry
from mask2former.utils.errors import UserError
from mask2former.utils.imports import resolve_python_file
from mask2former.utils.text import nearest

if TYPE_CHECKING:
    from mask2former.config.node import CfgNode

COMMAND_LINE = "command line"
Path_ = tuple[str, ...]  # of a key: ("SOLVER", "MAX_ITER")


@dataclass
class Notes:
    """What the reader of a recipe is told once it is read."""

    ignored: list[str] = field(default_factory=list)  # keys of compat.py
    foreign: dict[str, str] = field(default_factory=dict)  # key as it was written -> sentence


class Merger:
    """Puts the entries of one source into a config.

    Args:
        cfg: root of the config that is changed.
        given: dotted keys that somebody set; this source's are added.
        folder: where relative paths start.
        notes: collects what is to be told.
    """

    def __init__(self, cfg: CfgNode, given: set[str], folder: Path, notes: Notes):
        self.cfg, self.given, self.folder, self.notes = cfg, given, folder, notes
        self._written: dict[str, tuple[str, Any]] = {}  # key -> (as it was written here, value)

    def merge(self, entries: Mapping[str, Entry], section: Path_ = ()) -> None:
        """Take over a mapping of entries, which lie in `section`."""
        for key, entry in entries.items():
            self.set((*section, *_split(key, section)), entry)

    def set(self, path: Path_, entry: Entry, written: str = "") -> None:
        """Put the value or mapping `entry` at `path`; `written` is the key's foreign spelling, if it had one."""
        name = ".".join(path)
        if compat.is_ignored(name):
            self.notes.ignored.append(name)
        elif any(path[: len(section)] == section for section in OPEN_SECTIONS):
            self._set_open(path, entry)
        elif not self._is_known(path):
            self._set_foreign(path, entry)
        elif isinstance(at(self.cfg, path), Mapping):
            self._set_section(path, entry)
        elif foreign.is_placeholder(name, entry.value):
            self._leave_out(path, entry, written or name)
        else:
            self._set_value(path, entry, written or name)

    def _is_known(self, path: Path_) -> bool:
        parent = at(self.cfg, path[:-1])
        return isinstance(parent, Mapping) and path[-1] in parent

    def _set_section(self, path: Path_, entry: Entry) -> None:
        children = _as_entries(entry)
        if not isinstance(children, Mapping):
            raise UserError(
                f"{entry.source}: {'.'.join(path)} is {entry.value!r} ({values.type_name(entry.value)}), but it is a "
                f"section of keys: {', '.join(at(self.cfg, path))}."
            )
        self.merge(children, path)

    def _set_value(self, path: Path_, entry: Entry, written: str) -> None:
        name, parent = ".".join(path), at(self.cfg, path[:-1])
        default = _default(path, parent[path[-1]])
        if isinstance(entry.value, Mapping):
            raise UserError(
                f"{entry.source}: {name} is a section of keys, but {values.type_name(default)} is expected, as in the "
                f"default {default!r}."
            )
        quotient = values.quotient(entry.value) if isinstance(default, float) else None
        if quotient is not None:
            self.notes.foreign[written] = foreign.told_quotient(name, entry, quotient)
            entry = Entry(quotient, entry.source)
        value = values.fit(entry.value, default, name, entry.source, as_text=_is_word(entry))
        self._refuse_contradiction(name, written, value, entry.source)
        parent[path[-1]] = self._absolute_imports(value) if name == "IMPORTS" else value
        self.given.add(name)

    def _refuse_contradiction(self, name: str, written: str, value: Any, source: str) -> None:
        """One source may say the same thing under two names, but not two things."""
        before, earlier = self._written.setdefault(name, (written, value))
        if before != written and earlier != value:
            raise UserError(
                f"{source}: {written} is {value!r}, but {before} is {earlier!r}, and both stand for {name}. Keep "
                f"{name} alone."
            )
        self._written[name] = (written, value)

    def _leave_out(self, path: Path_, entry: Entry, written: str) -> None:
        """A placeholder takes back what a base has set: the value is for the data set to say."""
        name = ".".join(path)
        parent = at(self.cfg, path[:-1])
        parent[path[-1]] = _default(path, parent[path[-1]])
        self.given.discard(name)
        self.notes.foreign[written] = foreign.told_placeholder(name, written, entry)

    def _set_foreign(self, path: Path_, entry: Entry) -> None:
        """A key that no release knows: take over what foreign.py has an answer for, refuse the rest."""
        name = ".".join(path)
        if foreign.is_section(name):
            children = _as_entries(entry)
            if isinstance(children, Mapping):
                self.merge(children, path)
                return
        target = foreign.target(name)
        if target is not None and self._is_known(tuple(target.split("."))):
            self.notes.foreign[name] = foreign.told_moved(name, target, entry)
            self.set(tuple(target.split(".")), entry, written=name)
        elif foreign.is_left_out(name):
            self.notes.foreign[name] = foreign.told_left_out(name, entry)
        else:
            raise UserError(
                f"{entry.source}: unknown key {name}.{foreign.advice(name) or _nearest_key(self.cfg, name)}"
            )

    def _set_open(self, path: Path_, entry: Entry) -> None:
        """As `set`, in a section whose keys the recipe names: mappings are merged, other values replaced."""
        entry = Entry(_as_entries(entry), entry.source)
        if isinstance(entry.value, Mapping):
            self._open_node(path)
            for key, child in entry.value.items():
                self._set_open((*path, key), child)
        elif path in OPEN_SECTIONS:
            raise UserError(
                f"{entry.source}: {'.'.join(path)} is {entry.value!r}, but it is a section: {OPEN_SECTIONS[path]}."
            )
        else:
            value = values.decode(entry.value) if _is_word(entry) else entry.value
            self._open_node(path[:-1])[path[-1]] = values.lists(value)
            self.given.add(".".join(path))

    def _open_node(self, path: Path_) -> CfgNode:
        """The section at `path`, made where it is not there yet."""
        node = self.cfg
        for key in path:
            if not isinstance(node.get(key), Mapping):
                node[key] = type(self.cfg)()
            node = node[key]
        return node

    def _absolute_imports(self, entries: list) -> list:
        """Paths of .py files made absolute where they are found; the importer tells about those that are not."""
        found = [
            resolve_python_file(e, self.folder) if isinstance(e, str) and e.endswith(".py") else None for e in entries
        ]
        return [entry if path is None else str(path) for entry, path in zip(entries, found, strict=True)]


def at(node: Any, path: Path_) -> Any:
    """What stands at `path` of nested mappings; None where nothing does."""
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _split(key: str, section: Path_) -> Path_:
    """Dotted keys ("MODEL.WEIGHTS: x") also work in files; below an open section a dot is part of the name."""
    return (key,) if section in OPEN_SECTIONS else tuple(key.split("."))


def _default(path: Path_, current: Any) -> Any:
    """The default at `path`, which says what fits there; for keys that a program added, their current value."""
    parent = at(DEFAULTS, path[:-1])
    return parent[path[-1]] if isinstance(parent, dict) and path[-1] in parent else current


def _is_word(entry: Entry) -> bool:
    return entry.source == COMMAND_LINE and isinstance(entry.value, str)


def _as_entries(entry: Entry) -> Any:
    """The entry's value; a mapping written on the command line becomes one of entries, as in files."""
    value = values.decode(entry.value) if _is_word(entry) else entry.value
    if isinstance(value, Mapping):
        return {str(k): v if isinstance(v, Entry) else Entry(v, entry.source) for k, v in value.items()}
    return entry.value


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
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")
