"""Keys and values that no release knows, but that recipes of users carry: what they stand for, said aloud.

Such keys come from copied tutorials and other code bases. One with a single possible meaning is taken over under its
published name; one that asks for what happens anyway is left out; the rest is refused, with a sentence that says what
to write.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any

from mask2former.config.reader import Entry
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# foreign key -> published key of the same meaning
MOVED = {
    "MODEL.MASK_FORMER.IGNORE_VALUE": "MODEL.SEM_SEG_HEAD.IGNORE_VALUE",
    "MODEL.MASK_FORMER.NUM_CLASSES": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MODEL.MASK_FORMER.NUM_QUERIES": "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES",
    "MODEL.NUM_CLASSES": "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
    "MODEL.PIXEL_DECODER.NAME": "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
    "SOLVER.EVAL_PERIOD": "TEST.EVAL_PERIOD",
    "TEST.CHECKPOINT_PERIOD": "SOLVER.CHECKPOINT_PERIOD",
}

# foreign section -> published section that has its other keys
MOVED_SECTIONS = {"MODEL.PIXEL_DECODER": "MODEL.SEM_SEG_HEAD"}

# foreign key -> (the value that changes nothing, None: no value does; what to write instead)
LEFT_OUT: dict[str, tuple[Any, str]] = {
    "MODEL.MASK_FORMER.COMMON_STRIDE": (
        None,
        "no release reads it. The stride of the mask features is MODEL.SEM_SEG_HEAD.COMMON_STRIDE, what a batch is "
        "padded to a multiple of is MODEL.MASK_FORMER.SIZE_DIVISIBILITY",
    ),
    "MODEL.PIXEL_DECODER.NUM_GROUPS": (
        32,
        "GN has 32 groups, always. Choose the norm itself in MODEL.SEM_SEG_HEAD.NORM",
    ),
    "MODEL.PIXEL_DECODER.USE_CHECKPOINT": (
        False,
        "the pixel decoder keeps its activations, always. To save memory, raise SOLVER.ACCUMULATE_STEPS",
    ),
}

# foreign key -> what to write instead, where a value cannot be carried over without guessing
REFUSED = {
    "SOLVER.BATCH_SIZE": "Write SOLVER.IMS_PER_BATCH, the images of one update over all processes.",
    "SOLVER.EPOCHS": "Write SOLVER.MAX_ITER: epochs x training images / SOLVER.IMS_PER_BATCH.",
    "SOLVER.MAX_EPOCHS": "Write SOLVER.MAX_ITER: epochs x training images / SOLVER.IMS_PER_BATCH.",
}

# keys whose value the data set knows, so that a template's <placeholder> can stay
_KNOWN_BY_DATA = frozenset({"MODEL.SEM_SEG_HEAD.NUM_CLASSES"})
_PLACEHOLDER = re.compile(r"\s*<[^<>]*>\s*")


def is_section(name: str) -> bool:
    """Whether `name` is a foreign section, whose keys are looked at one by one."""
    return name in MOVED_SECTIONS


def target(name: str) -> str | None:
    """The published key that a foreign one stands for, if there is exactly one."""
    section, _, key = name.rpartition(".")
    if name in MOVED or name in LEFT_OUT or section not in MOVED_SECTIONS:
        return MOVED.get(name)
    return f"{MOVED_SECTIONS[section]}.{key}"


def is_left_out(name: str) -> bool:
    """Whether a foreign key can go without loss, at least with one value."""
    return name in LEFT_OUT


def is_placeholder(name: str, value: Any) -> bool:
    """Whether `value` is a template's "<number_of_your_classes>" for a key that the data set can answer."""
    return name in _KNOWN_BY_DATA and isinstance(value, str) and _PLACEHOLDER.fullmatch(value) is not None


def advice(name: str) -> str:
    """What to write in place of a foreign key that is refused; "" for keys nobody has heard of."""
    return f" {REFUSED[name]}" if name in REFUSED else ""


def told_moved(name: str, key: str, entry: Entry) -> str:
    """The sentence about a key that is taken over under its published name."""
    return f"{entry.source}: {name} is no key of any release; it is read as {key}, write that instead."


def told_left_out(name: str, entry: Entry) -> str:
    """The sentence about a key that is left out.

    Raises:
        UserError: the value asks for something else than what happens without the key.
    """
    harmless, reason = LEFT_OUT[name]
    if harmless is not None and entry.value != harmless:
        raise UserError(f"{entry.source}: {name} {entry.value!r} cannot be had: {reason}. Take {name} out.")
    return f"{entry.source}: {name} is left out: {reason}."


def told_placeholder(name: str, written: str, entry: Entry) -> str:
    """The sentence about a placeholder that stands where a value belongs."""
    return (
        f"{entry.source}: {written} is left out, since {entry.value!r} is a placeholder: the data set says the value. "
        f"Write {name} with a number, or nothing."
    )


def told_quotient(name: str, entry: Entry, value: float) -> str:
    """The sentence about a fraction written out as text."""
    return f"{entry.source}: {name} {entry.value!r} is read as {value:g}; write {value:g}, YAML does not calculate."


def announce(sentences: Iterable[str]) -> None:
    """Say each sentence once; warnings, for the reason given in `compat.announce_ignored`."""
    for sentence in sentences:
        logger.warning("%s", sentence)
