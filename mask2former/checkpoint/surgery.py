"""Tensors of a file made for other classes, another number of queries or other windows -> the model's shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from mask2former.checkpoint.report import Adapted, some_of

# K classes, Q queries, C channels, G attention heads, E edge of a bias table (2 * window - 1), S places of a map

_QUERIES = ("query_feat.weight", "query_embed.weight")  # [Q,C]
_CLASSES_AND_NONE = ("class_embed.weight", "class_embed.bias")  # [K+1,...], the last row is "no object"
_CLASSES = ("sem_seg_head.predictor.weight", "sem_seg_head.predictor.bias")  # [K,...] of the per-pixel baseline
_CLASS_WEIGHTS = "empty_weight"  # [K+1], the recipe's, not learned
_BIAS_TABLE = "relative_position_bias_table"  # [E*E,G]
_WINDOW_INDEX = "relative_position_index"  # computed from the window alone
_OFFSETS = "attn.rpb"  # [G,E,E], DiNAT's bias table
_POSITIONS = "absolute_pos_embed"  # [1,C,h,w]; [1,S,C] in files of classifiers
_MAX_PREFIX = 5  # a class token and four registers
_TOKENS = "pos_embed"  # [1,P+S,C] or [1,S,C] of timm's vision transformers, P tokens that are no places


@dataclass(frozen=True)
class ClassChange:
    """Class names of a file and of a model, which differ in names or order."""

    in_file: tuple[str, ...]
    in_model: tuple[str, ...]

    @property
    def kept(self) -> dict[int, int]:
        """Row of each class of the model whose name the file has, too -> its row in the file."""
        rows = {name: row for row, name in reversed(list(enumerate(self.in_file)))}
        return {row: rows[name] for row, name in enumerate(self.in_model) if name in rows}

    def __str__(self) -> str:
        kept = self.kept
        names = [name for row, name in enumerate(self.in_model) if row in kept]
        fresh = [name for row, name in enumerate(self.in_model) if row not in kept]
        return (
            f"other classes than the model's: {len(kept)} of {len(self.in_model)} kept by name "
            f"({some_of(names, 10)}), starting afresh: {some_of(fresh, 10)}"
        )


def class_change(contents: dict, names: Sequence[str] | None) -> ClassChange | None:
    """How the classes of a checkpoint differ from a model's `names`; None where they do not, or nobody knows.

    Checkpoints of this project have their classes under "labels"; published ones do not say theirs.
    """
    labels = contents.get("labels")
    in_file = labels.get("names") if isinstance(labels, dict) else None
    if names is None or not isinstance(in_file, list | tuple) or tuple(in_file) == tuple(names):
        return None
    return ClassChange(tuple(in_file), tuple(names))


def other_rows(name: str, names: Collection[str]) -> int | None:
    """How many rows a tensor has beside one per class, 0 or 1; None where its rows are no classes.

    Args:
        name: of the tensor.
        names: of all tensors beside it: where nothing predicts classes, each query stands for one
            (PerPixelBaseline+; Cheng et al., MaskFormer, sec. 4.1).
    """
    if name.endswith(_CLASSES_AND_NONE):
        return 1
    if name.endswith(_CLASSES):
        return 0
    lone_queries = name.endswith(_QUERIES) and not any(other.endswith(_CLASSES_AND_NONE) for other in names)
    return 0 if lone_queries else None


def is_class_head(name: str, names: Collection[str]) -> bool:
    """Whether a tensor's shape follows the number of classes; `names` as for `other_rows`."""
    return name.endswith(_CLASS_WEIGHTS) or other_rows(name, names) is not None


def adapt(
    weights: dict[str, Tensor], own: dict[str, Tensor], classes: ClassChange | None
) -> tuple[dict[str, Tensor], tuple[Adapted, ...]]:
    """Give tensors of a file the shapes and the order of rows that a model needs, where that has a meaning.

    - Queries: fewer are the first ones; more are all of the file, then again from the first, as often as needed.
      The copies are exact: twins part in training, when one is matched with an object that the other is not.
    - Class rows go to the class of the same name, if both sides' names are known and differ; "no object" is kept,
      and the rows of other classes are the model's.
    - Swin's bias tables and absolute positions are resized bicubically, as Swin's own code does; so are positions of
      timm's vision transformers, as timm does, and DiNAT's tables, for which its authors published no code.

    Args:
        weights: by the model's names; not changed.
        own: the model's tensors; not changed.
        classes: None where the classes agree or are not known.

    Returns:
        The weights, those that fit nowhere untouched, and what was changed.
    """
    result, adapted = dict(weights), []
    for name in own:
        if name not in weights:
            continue
        value, how = _fit(name, weights, own, classes)
        if how:
            result[name] = value
            adapted.append(Adapted(name, tuple(weights[name].shape), tuple(own[name].shape), how))
    return result, tuple(adapted)


def _fit(
    name: str, weights: dict[str, Tensor], own: dict[str, Tensor], classes: ClassChange | None
) -> tuple[Tensor, str]:
    """The tensor for the model and a word on it; as it is and no word where nothing is to be done."""
    theirs, ours = weights[name], own[name]
    if classes is not None and name.endswith(_CLASS_WEIGHTS):
        return ours, "the recipe's own"
    if is_class_head(name, own):
        others = other_rows(name, own)
        if classes is not None and others is not None and others == other_rows(name, weights):
            return _by_class(theirs, ours, classes, others)
    elif theirs.shape == ours.shape:
        pass
    elif name.endswith(_QUERIES) and theirs.shape[1:] == ours.shape[1:] and len(theirs):
        return _queries(theirs, len(ours))
    elif name.endswith(_WINDOW_INDEX):
        return ours, "computed for the model's window"
    elif name.endswith(_BIAS_TABLE):
        return _bias_table(theirs, ours)
    elif name.endswith(_POSITIONS):
        return _positions(theirs, ours)
    elif name.endswith(_OFFSETS) and theirs.dim() == ours.dim() == 3 and len(theirs) == len(ours):
        return _bicubic(theirs[None], tuple(ours.shape[1:]))[0], "resized bicubically to the model's kernel"
    elif name.endswith(_TOKENS):
        return _tokens(theirs, ours)
    return theirs, ""


def _by_class(theirs: Tensor, ours: Tensor, classes: ClassChange, others: int) -> tuple[Tensor, str]:
    """The model's own rows, and in place of some the file's: [K,...] or [K+1,...]."""
    expected = [len(names) + others for names in (classes.in_file, classes.in_model)]
    if theirs.shape[1:] != ours.shape[1:] or [len(theirs), len(ours)] != expected:
        return theirs, ""
    kept = classes.kept
    result = ours.clone()
    for row, source in [*kept.items(), *([(-1, -1)] if others else [])]:
        result[row] = theirs[source].to(ours)
    return result, f"{len(kept)} of {len(classes.in_model)} class rows kept" + (", and 'no object'" if others else "")


def _queries(theirs: Tensor, count: int) -> tuple[Tensor, str]:
    """[Q,C] -> [count,C]."""
    if count < len(theirs):
        return theirs[:count], f"the first {count} of {len(theirs)} queries"
    return theirs[torch.arange(count) % len(theirs)], f"{len(theirs)} queries, repeated in order to {count}"


def _bias_table(theirs: Tensor, ours: Tensor) -> tuple[Tensor, str]:
    """[E*E,G] for another window."""
    edges = [round(len(table) ** 0.5) for table in (theirs, ours)]
    tables = (theirs, ours)
    if theirs.shape[1:] != ours.shape[1:] or any(e * e != len(t) for e, t in zip(edges, tables)):
        return theirs, ""
    square = theirs.T.unflatten(1, (edges[0], edges[0]))[None]  # [1,G,E,E]
    return _bicubic(square, (edges[1], edges[1]))[0].flatten(1).T, "resized bicubically to the model's window"


def _positions(theirs: Tensor, ours: Tensor) -> tuple[Tensor, str]:
    """[1,C,h,w], or a square map as [1,S,C], for another size of the image."""
    if theirs.dim() == 3:
        edge = round(theirs.shape[1] ** 0.5)
        if edge * edge != theirs.shape[1]:
            return theirs, ""
        theirs = theirs.transpose(1, 2).unflatten(2, (edge, edge))
    if theirs.dim() != 4 or theirs.shape[:2] != ours.shape[:2]:
        return theirs, ""
    if theirs.shape == ours.shape:
        return theirs, "laid out as a map"
    return _bicubic(theirs, tuple(ours.shape[2:])), "resized bicubically to the model's size"


def _tokens(theirs: Tensor, ours: Tensor) -> tuple[Tensor, str]:
    """[1,P+S,C] of a square map for another one; both have the same P."""
    if theirs.dim() != 3 or ours.dim() != 3 or theirs.shape[2] != ours.shape[2]:
        return theirs, ""
    lengths = theirs.shape[1], ours.shape[1]
    for prefix in range(_MAX_PREFIX + 1):
        edges = [math.isqrt(max(length - prefix, 0)) for length in lengths]
        if all(edge and edge**2 == length - prefix for edge, length in zip(edges, lengths)):
            resized = resample_abs_pos_embed(theirs, [edges[1]] * 2, [edges[0]] * 2, num_prefix_tokens=prefix)
            return resized, "resized bicubically to the model's size"
    return theirs, ""


def _bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    precise = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision has no bicubic kernel on all CPUs
    return F.interpolate(precise, size, mode="bicubic", align_corners=False)
