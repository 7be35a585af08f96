"""Weights of a file -> a model, all of what fits or nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.report import Adapted, LoadReport, Reshaped, some_of
from mask2former.checkpoint.surgery import adapt, class_change, is_class_head
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

# below these shares of common tensors a file is taken for another architecture's
_LEAST_OVERALL = 0.5  # of the model's or the file's names, whichever are fewer: backbone-only files are welcome
_LEAST_BACKBONE = 0.75  # of the model's and of the file's backbone: half of a deeper ResNet is no ResNet
_LEAST_KNOWN = 0.95  # of the names in the file's backbone: what a model lacks of each block, it cannot compute without


def load_weights(
    model: nn.Module, path_or_url: str, key: str = "MODEL.WEIGHTS", labels: LabelSet | None = None
) -> LoadReport:
    """Copy the tensors of a file into a model, which need not have the same queries, classes or windows.

    Names are converted from other programs' where needed (`convert.py`), tensors are resized where that has a meaning
    (`surgery.py`). What still has another shape keeps the model's values. The report names all of these.

    Args:
        model: not wrapped in DistributedDataParallel.
        path_or_url: anything `load_checkpoint_file` reads.
        key: the key or flag that named the file, for messages.
        labels: the model's classes: those that the file knows by the same name keep their rows of the class head.
            None, or a file without names: rows are copied as they stand where their number agrees.

    Returns:
        What became of each tensor.

    Raises:
        UserError: the file cannot be read, or is of another architecture; the model is then as it was.
    """
    contents, own = load_checkpoint_file(path_or_url, key), model.state_dict()
    weights, notes = convert_names(contents["model"], set(own))
    change = class_change(contents, None if labels is None else labels.names)
    weights, adapted = adapt(weights, own, change)
    if any(is_class_head(one.name, own) for one in adapted):
        notes += (str(change),)
    return _apply(model, weights, compare(model, weights, path_or_url, notes, adapted), key)


def apply_weights(
    model: nn.Module, weights: dict[str, torch.Tensor], source: str, key: str = "MODEL.WEIGHTS"
) -> LoadReport:
    """Copy tensors that were read already into a model of the same queries and classes; `source` names their file.

    As `load_weights`, without resizing: what a model predicts with is not made up.
    """
    weights, notes = convert_names(weights, set(model.state_dict()))
    return _apply(model, weights, compare(model, weights, source, notes), key)


def _apply(model: nn.Module, weights: dict[str, torch.Tensor], report: LoadReport, key: str) -> LoadReport:
    check_architecture(model, weights, report, key)
    copy_tensors(model, weights, report.matched)
    return report


def compare(
    model: nn.Module,
    weights: dict[str, torch.Tensor],
    source: str,
    notes: tuple[str, ...] = (),
    adapted: tuple[Adapted, ...] = (),
) -> LoadReport:
    """What `copy_tensors` would do; the model is not touched."""
    own = model.state_dict()
    both = [name for name in own if name in weights]
    return LoadReport(
        source=source,
        matched=tuple(name for name in both if own[name].shape == weights[name].shape),
        missing=tuple(_weights_of(name for name in own if name not in weights)),
        unexpected=tuple(_weights_of(name for name in weights if name not in own)),
        reshaped=tuple(
            Reshaped(name, tuple(weights[name].shape), tuple(own[name].shape), is_class_head(name, own))
            for name in both
            if own[name].shape != weights[name].shape
        ),
        notes=notes,
        adapted=adapted,
    )


def copy_tensors(model: nn.Module, weights: dict[str, torch.Tensor], names: Iterable[str]) -> None:
    """Copy values in place, to the model's own device and dtype."""
    own = model.state_dict()
    with torch.no_grad():
        for name in names:
            own[name].copy_(weights[name])


def _weights_of(names: Iterable[str]) -> list[str]:
    """Without BatchNorm's update counters, which only averaging BatchNorms would read."""
    return [name for name in names if not name.endswith("num_batches_tracked")]


def check_architecture(model: nn.Module, weights: dict[str, torch.Tensor], report: LoadReport, key: str) -> None:
    """Raises UserError where so few tensors fit that the weights must be another model's."""
    ours, theirs, common = (set(_weights_of(names)) for names in (model.state_dict(), weights, report.matched))
    same = len(common) >= _LEAST_OVERALL * min(len(ours), len(theirs)) and common
    backbones = [{name for name in names if name.startswith("backbone.")} for names in (ours, theirs, common)]
    if all(backbones[:2]):
        known = backbones[0] & backbones[1]
        same = same and len(backbones[2]) >= _LEAST_BACKBONE * max(len(backbones[0]), len(backbones[1]))
        same = same and len(known) >= _LEAST_KNOWN * len(backbones[1])
    if same:
        return
    lines = [
        f"{report.source} is a checkpoint of another architecture: {len(common)} of its {len(theirs)} tensors fit this "
        f"model, which has {len(ours)}.",
        f"  only in the file: {some_of(report.unexpected)}",
        f"  only in the model: {some_of(report.missing)}",
    ]
    if report.reshaped:
        lines.append(f"  of another shape: {some_of([str(r) for r in report.reshaped])}")
    lines.append(f"Nothing was loaded. Use the recipe that the file was made with, or correct {key}.")
    raise UserError("\n".join(lines))
