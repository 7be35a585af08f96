"""What the formats of Hugging Face's whole models share."""

from __future__ import annotations

from collections.abc import Collection

from mask2former.checkpoint.formats.rules import Weights


def misfit(theirs: Weights, count: int, parts: Collection[str], either: Collection[str]) -> str:
    """What keeps renamed tensors from being a model of theirs; empty where nothing does.

    Args:
        theirs: what the rules gave; names that no rule knows are still ours.
        count: of our tensors.
        parts: names that every model of the kind has.
        either: names of which it has one: those of the backbones' first convolutions.
    """
    strange = [name for name in theirs if name.startswith(("backbone.", "sem_seg_head."))]
    if strange:
        return f"{len(strange)} of its {count} tensors, such as {strange[0]}, have no name there"
    complete = all(name in theirs for name in parts) and any(name in theirs for name in either)
    return "" if complete else "it does not have all of its parts"
