"""From a file of one program to a file of another, by way of our names."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mask2former.checkpoint.convert import without_wrapper
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.formats import FORMATS, find_format
from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.rules import Weights
from mask2former.checkpoint.report import summarize
from mask2former.checkpoint.writing import write_whole
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

OFFICIAL = "official"
_OURS = ("backbone.", "sem_seg_head.", "criterion.")
# what follows from other tensors or from nothing, so that formats may lack it
_COMPUTED = ("relative_position_index", "running_mean", "running_var", "empty_weight")
# of our own checkpoints, what says which model the weights belong to
_KEPT = ("config", "labels")


@dataclass(frozen=True)
class Source:
    """A file that was read.

    path       of it
    title      of its format
    count      of its tensors
    weights    under our names
    created    ours that the file does not have, computed
    left_over  its tensors that have no counterpart
    kept       what else belongs to the weights: recipe and classes, of checkpoints of ours
    notes      further remarks
    """

    path: str
    title: str
    count: int
    weights: Weights
    created: tuple[str, ...]
    left_over: tuple[str, ...]
    kept: dict[str, Any]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.title}, {self.count} tensors", *(f"  {note}" for note in self.notes)]
        kinds = Counter(name.rpartition(".")[2] for name in self.created)
        computed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(f"  {len(self.weights)} under our names" + (f", of them computed: {computed}" if computed else ""))
        if self.left_over:
            lines.append(f"  without a counterpart, left out ({len(self.left_over)}):")
            lines += [f"    {line}" for line in summarize(self.left_over, self.weights)]
        return "\n".join(lines)


def read_source(path: str, key: str) -> Source:
    """Any file or folder that `load_checkpoint_file` reads, under our names.

    Raises:
        UserError: it cannot be read, or its names are nobody's that we know.
    """
    contents = load_checkpoint_file(path, key)
    weights, notes = without_wrapper(contents["model"])
    found = find_format(weights)
    converted = weights if found is None else found.to_ours(weights)
    ours = {name: value for name, value in converted.items() if name.startswith(_OURS)}
    if not ours:
        examples = ", ".join(list(weights)[:3])
        raise UserError(
            f"{path} has {len(weights)} tensors whose names belong to no format that is known here, such as "
            f"{examples}. --list shows the formats. Correct {key}."
        )
    present = {name.rpartition(".")[2] for name in weights}
    created = [name for name in ours if name.endswith(_COMPUTED) and name.rpartition(".")[2] not in present]
    return Source(
        path=path,
        title="our names, as published" if found is None else found.title,
        count=len(weights),
        weights=ours,
        created=tuple(created),
        left_over=tuple(name for name in converted if name not in ours),
        kept={name: contents[name] for name in _KEPT if name in contents},
        notes=notes,
    )


def find_target(name: str, key: str) -> Format | None:
    """The format of a name that can be written; None for our own.

    Raises:
        UserError: there is none of that name, or it is only read.
    """
    known = {one.name: one for one in FORMATS if one.from_ours is not None}
    if name == OFFICIAL:
        return None
    if name in known:
        return known[name]
    only_read = " It is only read." if any(one.name == name for one in FORMATS) else suggest(name, [OFFICIAL, *known])
    raise UserError(
        f"{key} is '{name}', which is no format to write.{only_read} Known: {', '.join([OFFICIAL, *known])}."
    )


def save_weights(weights: Mapping[str, Tensor], path: Path, beside: Mapping[str, Any] | None, key: str) -> None:
    """Write tensors; the kind of file follows from the name's end: .pth, .pt or .bin, .safetensors, .pkl.

    Args:
        weights: name -> tensor.
        path: of the file, which is replaced where there is one.
        beside: what stands beside "model" in a checkpoint of ours; None: a file of tensors alone.
        key: the flag that named the file, for messages.

    Raises:
        UserError: another end of the name, or the file cannot be written.
    """
    writer = WRITERS.get(path.suffix)
    if writer is None:
        raise UserError(f"{path} ends in '{path.suffix}': expected one of {', '.join(WRITERS)}. Correct {key}.")
    # a tensor that is a view of another one would bring all of that along
    whole = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}
    write_whole(path, lambda temporary: writer(whole, beside, temporary), f"Make room, or correct {key}.")


def _write_torch(weights: Weights, beside: Mapping[str, Any] | None, path: Path) -> None:
    torch.save(weights if beside is None else {"model": weights, **beside}, path)


def _write_safetensors(weights: Weights, beside: Mapping[str, Any] | None, path: Path) -> None:
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})  # what transformers looks for


def _write_pickle(weights: Weights, beside: Mapping[str, Any] | None, path: Path) -> None:
    """As detectron2's model zoo has them; NumPy knows no bfloat16."""
    arrays = {n: (x.float() if x.dtype == torch.bfloat16 else x).numpy() for n, x in weights.items()}
    # with the last key detectron2 also finds a backbone's names without their prefix
    contents = {"model": arrays, "__author__": "mask2former", "matching_heuristics": True, **(beside or {})}
    with open(path, "wb") as file:
        pickle.dump(contents, file, protocol=2)


WRITERS = {
    ".pth": _write_torch,
    ".pt": _write_torch,
    ".bin": _write_torch,
    ".safetensors": _write_safetensors,
    ".pkl": _write_pickle,
}
