"""What class numbers mean: the label set that travels from the data set into checkpoints, metrics and pictures."""

from __future__ import annotations

import colorsys
import json
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

    def difference(self, other: LabelSet) -> str:
        """A sentence that lists how the class names differ in content or order; empty when they are the same."""
        if self.names == other.names:
            return ""
        only_here = [n for n in self.names if n not in other.names]
        only_there = [n for n in other.names if n not in self.names]
        if not only_here and not only_there:
            moved = [f"{i}: '{a}' against '{b}'" for i, (a, b) in enumerate(zip(self.names, other.names)) if a != b]
            return f"same names in another order ({'; '.join(moved[:5])})"
        return (
            f"{self.num_classes} classes against {other.num_classes}; "
            f"only in the first: {only_here[:10]}; only in the second: {only_there[:10]}"
        )

    def palette(self) -> np.ndarray:
        """Colours as uint8 [K,3] RGB; classes without a colour get well-separated hues, the same every time."""
        colors = [*self.colors[: self.num_classes]]
        for i in range(len(colors), self.num_classes):
            # golden-ratio steps keep neighbouring class numbers far apart in hue
            rgb = colorsys.hsv_to_rgb((0.05 + i * 0.618034) % 1.0, (0.85, 0.6)[i // 7 % 2], (0.95, 0.7)[i // 14 % 2])
            colors.append(tuple(round(255 * c) for c in rgb))
        return np.array(colors, dtype=np.uint8).reshape(-1, 3)


@cache
def _table(name: str) -> dict:
    return json.loads((files("mask2former") / "data" / "datasets" / "tables" / f"{name}.json").read_text())


def builtin_labels(dataset_name: str) -> LabelSet | None:
    """The labels of a published data set, or None when the name is not one of them."""
    entry = _table("datasets").get(dataset_name)
    return LabelSet.from_dict(_table(entry["labels"])) if entry else None
