"""Weights of a file -> a model, all of what fits or nothing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.report import LoadReport, Reshaped
from mask2former.utils.errors import UserError

# tensors whose shape follows the number of classes
_CLASS_HEADS = ("class_embed.weight", "class_embed.bias", "empty_weight")

# below these shares of common tensors a file is taken for another architecture's
_LEAST_OVERALL = 0.5  # of the model's or the file's names, whichever are fewer: backbone-only files are welcome
_LEAST_BACKBONE = 0.75  # of the model's and of the file's backbone: half of a deeper ResNet is no ResNet


def load_weights(model: nn.Module, path_or_url: str, key: str = "MODEL.WEIGHTS") -> LoadReport:
    """Copy the tensors of a file into a model.

    Names are converted from torchvision's and detectron2's where needed (`convert.py`). Tensors of another shape keep
    the model's values, and the report names them: a class head made for another number of classes is one of those.

    Args:
        model: not wrapped in DistributedDataParallel.
        path_or_url: anything `load_checkpoint_file` reads.
        key: the key or flag that named the file, for messages.

    Returns:
        What became of each tensor.

    Raises:
        UserError: the file cannot be read, or is of another architecture; the model is then as it was.
    """
    return apply_weights(model, load_checkpoint_file(path_or_url, key)["model"], path_or_url, key)


def apply_weights(
    model: nn.Module, weights: dict[str, torch.Tensor], source: str, key: str = "MODEL.WEIGHTS"
) -> LoadReport:
    """As `load_weights`, from tensors that were read already; `source` names their file."""
    weights, notes = convert_names(weights, set(model.state_dict()))
    report = compare(model, weights, source, notes)
    _check_architecture(model, weights, report, key)
    copy_tensors(model, weights, report.matched)
    return report


def compare(model: nn.Module, weights: dict[str, torch.Tensor], source: str, notes: tuple[str, ...] = ()) -> LoadReport:
    """What `copy_tensors` would do; the model is not touched."""
    own = model.state_dict()
    both = [name for name in own if name in weights]
    return LoadReport(
        source=source,
        matched=tuple(name for name in both if own[name].shape == weights[name].shape),
        missing=tuple(_weights_of(name for name in own if name not in weights)),
        unexpected=tuple(_weights_of(name for name in weights if name not in own)),
        reshaped=tuple(
            Reshaped(name, tuple(weights[name].shape), tuple(own[name].shape), name.endswith(_CLASS_HEADS))
            for name in both
            if own[name].shape != weights[name].shape
        ),
        notes=notes,
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


def _check_architecture(model: nn.Module, weights: dict[str, torch.Tensor], report: LoadReport, key: str) -> None:
    ours, theirs, common = (set(_weights_of(names)) for names in (model.state_dict(), weights, report.matched))
    same = len(common) >= _LEAST_OVERALL * min(len(ours), len(theirs)) and common
    backbones = [{name for name in names if name.startswith("backbone.")} for names in (ours, theirs, common)]
    if all(backbones[:2]):
        same = same and len(backbones[2]) >= _LEAST_BACKBONE * max(len(backbones[0]), len(backbones[1]))
    if same:
        return
    lines = [
        f"{report.source} is a checkpoint of another architecture: {len(common)} of its {len(theirs)} tensors fit this "
        f"model, which has {len(ours)}.",
        f"  only in the file: {_some(report.unexpected)}",
        f"  only in the model: {_some(report.missing)}",
    ]
    if report.reshaped:
        lines.append(f"  of another shape: {_some([str(r) for r in report.reshaped])}")
    lines.append(f"Nothing was loaded. Use the recipe that the file was made with, or correct {key}.")
    raise UserError("\n".join(lines))


def _some(names: Iterable[str], limit: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "none"
