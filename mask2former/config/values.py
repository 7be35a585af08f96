"""Values of keys: what a spelling means, and whether it fits the key's default."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from mask2former.config.reader import parse_value
from mask2former.utils.errors import UserError


def decode(text: str) -> Any:
    """The value that a text stands for: a Python literal ("(640, 672)", "1e-4", "None") or YAML ("[a, b]", "true").

    Text that is neither stays as it is. Nothing is ever evaluated: "1 / 1000" remains text here (see `quotient`).
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    stripped = text.strip()
    if stripped.startswith("(") and stripped.endswith(")"):  # a tuple of bare words: (coco_2017_val,)
        stripped = f"[{stripped[1:-1]}]"
    try:
        return parse_value(stripped)
    except UserError:
        return text


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_QUOTIENT = re.compile(rf"\s*({_NUMBER})\s*/\s*({_NUMBER})\s*")


def quotient(value: Any) -> float | None:
    """The number that a text such as "1.0 / 1000" stands for; None for everything but a fraction of two numbers."""
    found = _QUOTIENT.fullmatch(value) if isinstance(value, str) else None
    if found is None or float(found[2]) == 0:
        return None
    result = float(found[1]) / float(found[2])
    return result if math.isfinite(result) else None


def fit(value: Any, default: Any, key: str, source: str, as_text: bool = False) -> Any:
    """`value` in the type of the key's `default`.

    Sequences become lists; whole numbers pass for floats; text is decoded for every key that does not hold text.

    Args:
        value: as it was read.
        default: value the key had by default; None accepts anything.
        key: dotted name, for the message.
        source: file and line, or "command line", for the message.
        as_text: `value` is a word of the command line, so for text it may need its quotes taken off.

    Raises:
        UserError: the types do not agree; the message names both.
    """
    if isinstance(default, str):
        if as_text and value[:1] in ("'", '"'):
            unquoted = decode(value)
            value = unquoted if isinstance(unquoted, str) else value
        if not isinstance(value, str):
            raise _mismatch(value, default, key, source)
        return value
    if isinstance(value, str):
        value = decode(value)
    value = lists(value)
    if default is None:
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise _mismatch(value, default, key, source)
    if isinstance(default, list):
        _check_elements(value, default, key, source)
    return value


def type_name(value: Any) -> str:
    """The type's name as users know it."""
    if isinstance(value, dict):
        return "section"
    return "None" if value is None else type(value).__name__


def lists(value: Any) -> Any:
    """Tuples as lists, at every depth: one canonical form, which YAML can hold."""
    if isinstance(value, (list, tuple)):
        return [lists(item) for item in value]
    return value


def _check_elements(value: list, default: list, key: str, source: str) -> None:
    """Elements follow the default's where these are of one type; whole numbers and floats stand for each other
    only where the default has floats (INPUT.CROP.SIZE counts pixels or shares)."""
    kinds = {type(item) for item in default}
    if len(kinds) != 1:
        return
    (kind,) = kinds
    allowed = (int, float) if kind is float else (kind,)
    for item in value:
        if type(item) not in allowed:
            raise UserError(
                f"{source}: {key} holds {item!r} ({type_name(item)}), but its elements are {kind.__name__}, as in the "
                f"default {default!r}."
            )


def _mismatch(value: Any, default: Any, key: str, source: str) -> UserError:
    hint = ""
    if isinstance(default, list) and isinstance(value, (str, int, float)):
        hint = f" Write [{value}]."
    elif isinstance(default, str) and isinstance(value, (int, float)):
        hint = f' Write "{value}" with its quotes.'
    return UserError(
        f"{source}: {key} is {value!r} ({type_name(value)}), but {type_name(default)} is expected, as in the default "
        f"{default!r}.{hint}"
    )
