"""The Markdown files of the repository, in the pieces that tests ask for."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences; `language` is "" where none is written."""

    language: str
    text: str


def _blocks(text: str) -> Iterator[Block]:
    for _, language, body in _FENCE.findall(text):
        yield Block(language, textwrap.dedent(body))


@pytest.fixture(scope="session")
def section(repo_dir: Path) -> Callable[[str, str], str]:
    """Function of a file and a heading that returns the text from the heading to the next one of its level."""

    def find(name: str, heading: str) -> str:
        text = (repo_dir / name).read_text()
        start = text.index(f"\n{heading}\n")
        level = heading.partition(" ")[0]
        end = text.find(f"\n{level} ", start + 1)
        return text[start : end if end > 0 else len(text)]

    return find


@pytest.fixture(scope="session")
def blocks() -> Callable[[str], list[Block]]:
    """Function of a text that returns its fenced blocks, dedented."""
    return lambda text: list(_blocks(text))


@pytest.fixture(scope="session")
def make_shapes(repo_dir: Path) -> ModuleType:
    """The script datasets/make_shapes.py."""
    spec = importlib.util.spec_from_file_location("make_shapes_for_docs", repo_dir / "datasets" / "make_shapes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
