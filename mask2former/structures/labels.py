"""What class numbers mean: the label set that travels from the data set into checkpoints, metrics and pictures."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

import numpy as np


@dataclass(frozen=True)
class LabelSet:
    """Classes in the order of the model's outputs.

    names        one name per class
    thing_ids    contiguous class numbers with countable instances; the others are stuff
    colors       RGB per class, 0 to 255; empty: a default palette
    ignore_label value of pixels without ground truth
    dataset_ids  the ids the data set's own files use, per class; empty: the class number itself
    """

    names: tuple[str, ...]
    thing_ids: tuple[int, ...] = ()
    colors: tuple[tuple[int, int, int], ...] = ()
    ignore_label: int = 255
    dataset_ids: tuple[int, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def stuff_ids(self) -> tuple[int, ...]:
        things = set(self.thing_ids)
        return tuple(i for i in range(self.num_classes) if i not in things)

    def to_dict(self) -> dict:
        """Plain lists and numbers, as stored in checkpoints."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, values: dict) -> LabelSet:
        return cls(
            names=tuple(values["names"]),
            thing_ids=tuple(values.get("thing_ids") or ()),
            colors=tuple(tuple(c) for c in values.get("colors") or ()),
            ignore_label=values.get("ignore_label", 255),
            dataset_ids=tuple(values.get("dataset_ids") or ()),
        )

    def difference(self, other: LabelSet, called: tuple[str, str] = ("first", "second")) -> str:
        """A sentence that lists how the classes differ; empty when they are the same in the same order.

        `called` is what the two sets are called in it: "only in the <...>".

        Differing names are told first. Where the names agree, the division into things and stuff is compared, unless
        one of the sets has no things at all: a semantic data set does not say which classes are things.
        """
        if self.names != other.names:
            return self._names_difference(other, called)
        if self.thing_ids and other.thing_ids and set(self.thing_ids) != set(other.thing_ids):
            here, there = ([one.names[i] for i in one.thing_ids] for one in (self, other))
            return f"same names, but other things; {_two_sides(here, there, called)}"
        return ""

    def _names_difference(self, other: LabelSet, called: tuple[str, str]) -> str:
        if set(self.names) == set(other.names) and len(self.names) == len(other.names):
            moved = [f"{i}: '{a}' against '{b}'" for i, (a, b) in enumerate(zip(self.names, other.names)) if a != b]
            return f"same names in another order ({'; '.join(moved[:5])})"
        return f"{self.num_classes} classes against {other.num_classes}; {_two_sides(self.names, other.names, called)}"

    def values_difference(self, other: LabelSet) -> str:
        """As `difference`, of the numbers that files use: the ignore value, and the id of each class."""
        found = []
        if self.ignore_label != other.ignore_label:
            found.append(f"ignore value {self.ignore_label} against {other.ignore_label}")
        own = [one.dataset_ids or tuple(range(one.num_classes)) for one in (self, other)]
        moved = [f"'{name}' is {a} against {b}" for name, a, b in zip(self.names, *own) if a != b]
        if moved:
            found.append(f"ids of classes in the files: {', '.join(moved[:5])}")
        return "; ".join(found)

    def palette(self) -> np.ndarray:
        """Colours as uint8 [K,3] RGB; classes without a colour get well-separated hues, the same every time."""
        colors = [*self.colors[: self.num_classes]]
        for i in range(len(colors), self.num_classes):
            # golden-ratio steps keep neighbouring class numbers far apart in hue
            rgb = colorsys.hsv_to_rgb((0.05 + i * 0.618034) % 1.0, (0.85, 0.6)[i // 7 % 2], (0.95, 0.7)[i // 14 % 2])
            colors.append(tuple(round(255 * c) for c in rgb))
        return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def _two_sides(first: Sequence[str], second: Sequence[str], called: tuple[str, str]) -> str:
    """What only one of two lists has, of each the first ten."""
    sides = []
    for place, mine, others in zip(called, (first, second), (set(second), set(first))):
        only = [name for name in mine if name not in others]
        sides.append(f"only in the {place}: {only[:10]}" + (f" and {len(only) - 10} more" if len(only) > 10 else ""))
    return "; ".join(sides)


def is_color(value: object) -> bool:
    """Whether `value` is a list [red, green, blue] of numbers from 0 to 255."""
    return isinstance(value, list) and len(value) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in value)


@cache
def read_table(name: str) -> dict:
    """A table of `data/datasets/tables`; not to be changed."""
    return json.loads((files("mask2former") / "data" / "datasets" / "tables" / f"{name}.json").read_text())


def builtin_labels(dataset_name: str) -> LabelSet | None:
    """The labels of a published data set, or None when the name is not one of them."""
    entry = read_table("datasets").get(dataset_name)
    return LabelSet.from_dict(read_table(entry["labels"])) if entry else None
