"""What the Markdown files name exists: files, headings, recipes, keys and their defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import yaml

from mask2former.config import foreign
from mask2former.config.compat import IGNORED_KEYS, IGNORED_SECTIONS
from mask2former.config.defaults import DEFAULTS, OPEN_SECTIONS
from mask2former.evaluation import EVALUATORS

REPO = Path(__file__).resolve().parents[2]
PAGES = [path.relative_to(REPO).as_posix() for path in sorted([*REPO.glob("*.md"), *REPO.glob("[!.]*/README.md")])]
# files that a reader is told to write, and a wrong key that shows the error about it
WRITTEN = {"configs/examples/my_data.yaml"}
WRONG_KEYS = {"SOLVER.MAX_ITERS"}
# keys that ADVANCED_USAGE.md leaves out: those of clips, the kind of model, and shapes that published weights fix
NOT_TUNED = re.compile(
    r"MODEL\.(SWIN|DINAT)\.(?!DROP_PATH_RATE$|USE_CHECKPOINT$)|MODEL\.META_ARCHITECTURE$"
    r"|MODEL\.RESNETS\.(?!DEPTH$|NORM$|STRIDE_IN_1X1$|STEM_TYPE$)"
    r"|MODEL\.MASK_FORMER\.(ENC_LAYERS|TRANSFORMER_\w+)$"
    r"|MODEL\.SEM_SEG_HEAD\.(NAME|LOSS_\w+|PROJECT_\w+|ASPP_\w+|USE_DEPTHWISE\w+|IN_FEATURES|PIXEL_DECODER_NAME"
    r"|DEFORMABLE_\w+)$"
)


def leaves(node: dict, path: tuple = ()) -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if isinstance(value, dict) and (*path, key) not in OPEN_SECTIONS:
            yield from leaves(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


@cache
def known_keys() -> set[str]:
    """Keys and sections of every kind that a recipe may name."""
    foreigners = {*foreign.MOVED, *foreign.MOVED_SECTIONS, *foreign.LEFT_OUT, *foreign.REFUSED}
    names = {key for key, _ in leaves(DEFAULTS)} | IGNORED_KEYS | IGNORED_SECTIONS | foreigners | WRONG_KEYS
    return {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}


def expanded(pattern: str) -> list[str]:
    """`a/{b,c}.py` -> `a/b.py`, `a/c.py`, as a shell does."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    return [
        "".join(words) for words in product(*(part.split(",") if i % 2 else [part] for i, part in enumerate(parts)))
    ]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    path = REPO / page
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            dead.append(target)
    assert dead == []


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str):
    text = (REPO / page).read_text()
    paths = re.findall(r"(?<![\w/.{}-])((?:[\w{},-]+/)+[\w{},-]+\.(?:py|yaml|md))(?![\w/])", text)
    paths = {path for pattern in paths for path in expanded(pattern)} - WRITTEN
    roots = [REPO, REPO / "mask2former", (REPO / page).parent]
    assert [path for path in sorted(paths) if not any((root / path).is_file() for root in roots)] == []


@pytest.mark.parametrize("page", PAGES)
def test_named_keys_exist(page: str):
    text = (REPO / page).read_text()
    named = set(re.findall(r"(?<![\w.$/])[A-Z][A-Z0-9_]+(?:\.[A-Z][A-Z0-9_]+)+(?![\w(])", text))
    assert sorted(name for name in named if name not in known_keys()) == []


@pytest.mark.parametrize("page", PAGES)
def test_named_flags_exist(page: str):
    text = (REPO / page).read_text().replace("\\\n", " ")
    unknown = []
    for script, words in re.findall(r"^ *python ((?:\w+/)?\w+\.py)( .*)$", text, re.M):
        source = (REPO / ("mask2former/engine/setup.py" if script == "train_net.py" else script)).read_text()
        unknown += [f"{script} {flag}" for flag in re.findall(r" (--[\w-]+)", words) if f'"{flag}"' not in source]
    assert unknown == []


def test_advanced_usage_tells_every_tuned_key_and_its_default():
    text = (REPO / "ADVANCED_USAGE.md").read_text()
    rows = re.findall(r"^\| `([A-Z][A-Z0-9_.]+)` \| `([^`]*)` \| ", text, re.M)
    told = {key: yaml.safe_load(value) for key, value in rows}
    defaults = {key: value for key, value in leaves(DEFAULTS) if not NOT_TUNED.match(key)}
    assert len(told) == len(rows)
    assert sorted(defaults.keys() ^ told.keys()) == []
    assert {key: value for key, value in told.items() if value != defaults[key]} == {}


def test_advanced_usage_tells_every_evaluator_and_foreign_key():
    text = (REPO / "ADVANCED_USAGE.md").read_text()
    keys = {*foreign.MOVED, *foreign.LEFT_OUT, *foreign.REFUSED}
    assert [name for name in [*EVALUATORS, *sorted(keys)] if f"`{name}`" not in text] == []
