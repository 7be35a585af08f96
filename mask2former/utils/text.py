"""Small pieces of text for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The option most like `word`, upper and lower case taken as equal; None when none reaches `cutoff`.

    Args:
        word: what was written.
        options: what could have been meant.
        cutoff: smallest similarity that counts, 0 (anything) to 1 (the same), as `difflib` measures it.
    """
    by_lower = {option.lower(): option for option in options}
    found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def suggest(word: str, options: Iterable[str], cutoff: float = 0.6) -> str:
    """The tail of an error message: " Did you mean 'x'?", or "" when nothing is near enough."""
    option = nearest(word, options, cutoff)
    return "" if option is None else f" Did you mean {option!r}?"


def some(items: Sequence[object], count: int = 5) -> str:
    """The first `count` items, and how many more there are."""
    rest = len(items) - count
    return "; ".join(map(str, items[:count])) + (f"; and {rest} more" if rest > 0 else "")
