"""Pretrained backbones from files that know nothing of our models."""

from __future__ import annotations

import torch
from torch import nn

from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.loading import compare, copy_tensors
from mask2former.checkpoint.report import LoadReport
from mask2former.utils.errors import UserError


def load_backbone_weights(backbone: nn.Module, path: str, key: str = "MODEL.TIMM.WEIGHTS") -> LoadReport:
    """Copy a classification network's tensors into a backbone: by name where names agree, else in order.

    Names may differ by one prefix on either side ("backbone.", "model." ...). Where not a single name agrees, the
    file's tensors are taken one after the other, provided that each has the backbone's shape and kind (weight, bias,
    running_mean ...) in turn; whatever the file has after the last one (its classifier) is left over.

    Returns:
        What became of each tensor, with a note when names were not used.

    Raises:
        UserError: the file cannot be read or fits neither way; the backbone is then as it was.
    """
    own = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    in_file = load_checkpoint_file(path, key)["model"]
    weights, notes = _align_prefix(in_file, own)
    if not any(name in own for name in weights):
        converted, remark = convert_names(in_file, set(own))
        weights, notes = _align_prefix(converted, own)
        notes = remark + notes
    report = compare(backbone, weights, path, notes)
    if not any(name in own for name in weights):
        weights = _in_order(in_file, own, path, key)
        report = compare(backbone, weights, path, ("no name agrees: tensors were taken in order, all shapes fit",))
    elif len(set(report.matched) & set(own)) < len(own) / 2:
        examples = [str(r) for r in report.reshaped] or list(report.missing)
        raise UserError(
            f"{path} is a checkpoint of another architecture: {len(report.matched)} of the backbone's {len(own)} "
            f"tensors fit, these do not: {', '.join(examples[:4])}. Nothing was loaded. Correct {key} or "
            "MODEL.BACKBONE.NAME."
        )
    copy_tensors(backbone, weights, report.matched)
    return report


def _align_prefix(weights: dict[str, torch.Tensor], own: dict) -> tuple[dict, tuple[str, ...]]:
    """The tensors under the names that agree most often with `own`: as they are, or with one prefix less or more."""
    candidates = {""}
    for ours in list(own)[:1]:
        candidates |= {f"-{theirs[: -len(ours)]}" for theirs in weights if theirs.endswith(f".{ours}")}
    for theirs in list(weights)[:1]:
        candidates |= {f"+{ours[: -len(theirs)]}" for ours in own if ours.endswith(f".{theirs}")}
    renamed = {candidate: _with_prefix(weights, candidate) for candidate in candidates}
    best = max(sorted(renamed), key=lambda candidate: sum(name in own for name in renamed[candidate]))
    verb = {"": "", "-": "removed from", "+": "added to"}[best[:1]]
    return renamed[best], (f"prefix '{best[1:]}' {verb} the file's names",) if best else ()


def _with_prefix(weights: dict[str, torch.Tensor], change: str) -> dict[str, torch.Tensor]:
    prefix = change[1:]
    if change.startswith("+"):
        return {f"{prefix}{name}": value for name, value in weights.items()}
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _in_order(weights: dict[str, torch.Tensor], own: dict, path: str, key: str) -> dict[str, torch.Tensor]:
    """The file's tensors under the backbone's names, by position; leftovers keep their own names."""
    theirs = [(name, value) for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    result = dict(theirs[len(own) :])
    for i, (name, value) in enumerate(own.items()):
        found, tensor = theirs[i] if i < len(theirs) else ("nothing", torch.empty(0))
        if tensor.shape != value.shape or found.rpartition(".")[2] != name.rpartition(".")[2]:
            raise UserError(
                f"{path} is a checkpoint of another architecture: no tensor name agrees with the backbone's, and in "
                f"order, tensor {i} is {found} {list(tensor.shape)} in the file and {name} {list(value.shape)} in the "
                f"backbone. Nothing was loaded. Correct {key} or MODEL.BACKBONE.NAME."
            )
        result[name] = tensor
    return result
