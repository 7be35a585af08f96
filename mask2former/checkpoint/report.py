"""What became of each tensor when weights were loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshaped:
    """A tensor whose shape in the file is not the model's; the model kept its own.

    class_head  whether it belongs to the classifier, whose shape follows the number of classes
    """

    name: str
    in_file: Shape
    in_model: Shape
    class_head: bool

    def __str__(self) -> str:
        return f"{self.name}: {list(self.in_file)} in the file, {list(self.in_model)} in the model"


@dataclass(frozen=True)
class Adapted:
    """A tensor that was changed to suit the model before it was copied; `how` in words."""

    name: str
    in_file: Shape
    in_model: Shape
    how: str

    def __str__(self) -> str:
        shapes = f"{list(self.in_file)} in the file"
        if self.in_file != self.in_model:
            shapes += f", {list(self.in_model)} in the model"
        return f"{self.name}: {shapes}; {self.how}"


@dataclass(frozen=True)
class LoadReport:
    """Tensors by name, as the model calls them; those in `unexpected` as the file does.

    source      the file
    matched     copied into the model, the adapted ones included
    missing     in the model only: kept as they were
    unexpected  in the file only: not used
    reshaped    in both, with different shapes: kept as they were
    notes       renaming and other remarks
    adapted     resized, or their rows put in the model's order, before they were copied

    BatchNorm's `num_batches_tracked` counters are copied where both have them and not mentioned otherwise.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[Reshaped, ...]
    notes: tuple[str, ...] = ()
    adapted: tuple[Adapted, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.matched)} tensors loaded", *(f"  {note}" for note in self.notes)]
        if self.adapted:
            lines.append("  changed to suit the model:")
            lines += [f"    {line}" for line in _alike(self.adapted)]
        heads = [r for r in self.reshaped if r.class_head]
        others = [r for r in self.reshaped if not r.class_head]
        if heads:
            lines.append("  made for another number of classes, starting afresh:")
            lines += [f"    {r}" for r in heads]
        if others:
            lines.append("  of another shape, not loaded:")
            lines += [f"    {r}" for r in others]
        known = [*self.matched, *(r.name for r in self.reshaped)]
        if self.missing:
            lines.append(f"  not in the file, starting afresh ({len(self.missing)}):")
            lines += [f"    {line}" for line in summarize(self.missing, others=known)]
        if self.unexpected:
            lines.append(f"  in the file but not in the model ({len(self.unexpected)}):")
            lines += [f"    {line}" for line in summarize(self.unexpected, others=known)]
        return "\n".join(lines)


def _alike(adapted: Iterable[Adapted]) -> list[str]:
    """A line for each kind of change of tensors called alike: the first of them, and how many more."""
    kinds: dict[tuple[str, str], list[Adapted]] = {}
    for one in adapted:
        kinds.setdefault((".".join(one.name.split(".")[-2:]), one.how), []).append(one)
    return [f"{same[0]}" + (f" (and {len(same) - 1} more)" if same[1:] else "") for same in kinds.values()]


def some_of(names: Iterable[str], limit: int = 4) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "none"


def summarize(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Names one per line; those that fill a module on their own become one line, `module.* (n tensors)`.

    Args:
        names: dotted names.
        others: names that must not be swept up by such a line.
    """
    foreign = {other[:i] for other in others for i, letter in enumerate(other) if letter == "."}
    lines: dict[str, int] = {}
    for name in names:
        parts = name.split(".")
        heads = (".".join(parts[:i]) for i in range(1, len(parts)))
        whole = next((head for head in heads if head not in foreign), None)
        line = f"{whole}.*" if whole else name
        lines[line] = lines.get(line, 0) + 1
    return [f"{line} ({count} tensors)" if line.endswith(".*") else line for line, count in lines.items()]
