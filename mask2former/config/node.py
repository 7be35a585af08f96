"""The config object, and how a recipe becomes one: defaults, then the `_BASE_` chain, the file, the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode as _YacsNode

from mask2former.config import compat, foreign
from mask2former.config.bases import chain
from mask2former.config.defaults import DEFAULTS
from mask2former.config.merge import COMMAND_LINE, Merger, Notes, at
from mask2former.config.reader import Entry, dump_yaml
from mask2former.utils.errors import UserError

_GIVEN = "__given__"  # where yacs keeps its own marks: beside the keys, not among them


class CfgNode(_YacsNode):
    """yacs's node (attribute access, `freeze`, `defrost`, `clone`) with our own, stricter ways in.

    Keys come from `get_cfg`; merging changes their values and never adds any, except in sections that are open.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.__dict__[_GIVEN] = set()

    def given(self, dotted_key: str) -> bool:
        """Whether a recipe, the command line or a program chose the value of a key, or of one in a section.

        Asked of the root. A value that equals the default counts when a file or the command line wrote it; one that
        a program assigned counts when it differs from the default. A clone knows the same; a config read from what
        `dump` wrote has every key given.
        """
        marks = self.__dict__[_GIVEN]
        if dotted_key in marks or any(mark.startswith(f"{dotted_key}.") for mark in marks):
            return True
        path = tuple(dotted_key.split("."))
        return _plain(at(self, path)) != at(DEFAULTS, path)

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Take over the values of a YAML file, those of its `_BASE_` chain first.

        Raises:
            UserError: see `load_cfg`.
        """
        self._refuse_when_frozen()
        notes = Notes()
        for path, entries in chain(Path(cfg_filename).expanduser()):
            Merger(self, self.__dict__[_GIVEN], path.parent, notes).merge(entries)
        _announce(notes)

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Take over KEY VALUE pairs from a flat list, as the command line gives them.

        Raises:
            UserError: see `load_cfg`.
        """
        self._refuse_when_frozen()
        if len(cfg_list) % 2:
            raise UserError(
                f"{COMMAND_LINE}: {cfg_list[-1]!r} stands alone; give pairs KEY VALUE, separated by spaces, such as "
                "SOLVER.MAX_ITER 1000."
            )
        notes = Notes()
        merger = Merger(self, self.__dict__[_GIVEN], Path.cwd(), notes)
        for key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            merger.set(tuple(str(key).split(".")), Entry(value, COMMAND_LINE))
        _announce(notes)

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
            another type than the default's, a `_BASE_` chain that closes on itself, a `_BASE_` that does not exist
            (with the nearest recipes that do). The message starts with the file and line, or with "command line".
    """
    cfg = get_cfg()
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(list(opts))
    return cfg


def _announce(notes: Notes) -> None:
    compat.announce_ignored(notes.ignored)
    foreign.announce(notes.foreign.values())


def _plain(value: Any) -> Any:
    """Nodes as dicts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
