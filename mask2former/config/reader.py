"""Safe reading of YAML recipes, with the line every value came from.

A recipe is data. Only YAML's own types are read (mappings, sequences, text, numbers, booleans, null); a tag that asks
for anything else, such as `!!python/object`, is refused by name and line, and never looked up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

_FLOAT_TAG = "tag:yaml.org,2002:float"
_MERGE_TAG = "tag:yaml.org,2002:merge"  # "<<", which no constructor handles
# YAML 1.1 wants a dot in every float and would read 1e-4 as text; YAML 1.2 and everybody's expectation differ
_EXPONENT_FLOAT = re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # equal lists are written out, not pointed at
        return True


for _class in (_Loader, _Dumper):  # both, so that text which looks like such a number is quoted when written
    _class.add_implicit_resolver(_FLOAT_TAG, _EXPONENT_FLOAT, list("-+0123456789"))


@dataclass(frozen=True)
class Entry:
    """One value of a recipe, or a whole mapping, with its source ("file.yaml, line 3") for messages."""

    value: Any  # plain value, or dict[str, Entry] for a mapping
    source: str


def dump_yaml(value: Any) -> str:
    """YAML text of plain values; innermost lists stand on one line."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=None, width=120)


def parse_value(text: str, source: str = "command line") -> Any:
    """The plain value that a piece of YAML text stands for."""
    return _construct(_compose(text, source), source)


def read_file(path: Path) -> dict[str, Entry]:
    """The mapping at the top of a YAML file, key by key; an empty file is an empty mapping.

    Raises:
        UserError: the file is missing, not YAML, not a mapping, repeats a key, or uses a tag beyond plain YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = suggest(path.name, [p.name for p in path.parent.glob("*.y*ml")])
        raise UserError(f"The config file {path} could not be read: {error.strerror}.{hint}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The config file {path} is not text in UTF-8: {error}.") from error
    node = _compose(text, str(path))
    if node is None:
        return {}
    try:
        entry = _entry(node, str(path))
    except RecursionError:
        raise UserError(f"{path}: an anchor (&name) contains itself, or values are nested too deeply.") from None
    if not isinstance(entry.value, dict):
        found = type(entry.value).__name__
        raise UserError(f"{entry.source}: a recipe is a mapping of keys to values, found {found}.")
    return entry.value


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{source}{line}: not valid YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:  # characters that YAML forbids
        raise UserError(f"{source}: not valid YAML: {error}.") from error


def _entry(node: yaml.Node, file: str) -> Entry:
    """Mappings become dicts of entries; everything below a sequence becomes plain values at once."""
    source = f"{file}, line {node.start_mark.line + 1}"
    if not isinstance(node, yaml.MappingNode):
        return Entry(_construct(node, file), source)
    _refuse_foreign_tags(node, file)
    _refuse_repeated_keys(node, file)
    loader = _Loader("")
    loader.flatten_mapping(node)  # "<<: *anchor"
    children = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        child = _entry(value_node, file)
        children[key] = Entry(child.value, f"{file}, line {key_node.start_mark.line + 1}")
    return Entry(children, source)


def _construct(node: yaml.Node | None, file: str) -> Any:
    if node is None:
        return None
    _refuse_foreign_tags(node, file)
    try:
        return _Loader("").construct_document(node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: dates that do not exist
        raise UserError(f"{file}, line {node.start_mark.line + 1}: {error}.") from error


def _refuse_foreign_tags(node: yaml.Node, file: str) -> None:
    if node.tag not in _Loader.yaml_constructors and node.tag != _MERGE_TAG:
        tag = node.tag.replace("tag:yaml.org,2002:", "!!")
        raise UserError(
            f"{file}, line {node.start_mark.line + 1}: the YAML tag {tag!r} is refused, since tags can run code. "
            "Write the plain value instead, for example [320, 384, 448]."
        )
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_foreign_tags(child, file)
    elif isinstance(node, yaml.MappingNode):
        for key_node, value_node in node.value:
            _refuse_foreign_tags(key_node, file)
            _refuse_foreign_tags(value_node, file)


def _refuse_repeated_keys(node: yaml.MappingNode, file: str) -> None:
    lines: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value)
        if key != "<<" and lines.setdefault(key, line) != line:
            raise UserError(f"{file}, line {line}: {key} stands in line {lines[key]} already; keep one of the two.")
