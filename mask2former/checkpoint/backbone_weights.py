"""Pretrained backbones from files that know nothing of our models."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

from mask2former.checkpoint.convert import without_wrapper
from mask2former.checkpoint.files import load_checkpoint_file
from mask2former.checkpoint.formats import FORMATS, find_format
from mask2former.checkpoint.input_channels import adapt_input_channels, is_input_of_colours
from mask2former.checkpoint.loading import compare, copy_tensors
from mask2former.checkpoint.report import LoadReport
from mask2former.checkpoint.surgery import adapt
from mask2former.checkpoint.timm_pretrained import PRETRAINED, load_timm_pretrained
from mask2former.utils.errors import UserError

_FIRST_INDEX = re.compile(r"^([a-z_]+)\.(\d+)\.")


def load_backbone_weights(backbone: nn.Module, path: str, key: str = "MODEL.TIMM.WEIGHTS") -> LoadReport:
    """Copy a classification network's tensors into a backbone: by name where names agree, else in order.

    The file may have the backbone's names or those of another program that `formats` knows, and both may differ by one
    prefix on either side ("backbone.", "model." ...). Where not a single name agrees, the file's tensors are taken one
    after the other, provided that each has the backbone's shape and kind (weight, bias, running_mean ...) in turn;
    whatever the file has after the last one (its classifier) is left over. Bias tables and positions are resized as
    `load_weights` does, and a first convolution for colours is made one for the backbone's channels.

    Instead of a file, "pretrained" stands for timm's own weights of a timm backbone.

    Returns:
        What became of each tensor, with a note when names were not used.

    Raises:
        UserError: the file cannot be read or fits neither way; the backbone is then as it was.
    """
    if path == PRETRAINED:
        return load_timm_pretrained(backbone, key)
    channels = getattr(backbone, "in_channels", 3)
    own = {name: value for name, value in backbone.state_dict().items() if not name.endswith("num_batches_tracked")}
    in_file, notes = without_wrapper(load_checkpoint_file(path, key)["model"])
    aligned = [(*_align_prefix(weights, own), remark) for weights, remark in _namings(in_file)]
    weights, prefix, remark = max(aligned, key=lambda one: sum(name in own for name in one[0]))  # the first of equals
    if not any(name in own for name in weights):
        weights = _in_order(in_file, own, channels, path, key)
        weights, adapted = adapt_input_channels(weights, own, channels)
        notes = (*notes, "no name agrees: tensors were taken in order, all shapes fit")
        report = compare(backbone, weights, path, notes, adapted)
    else:
        weights, adapted = adapt(weights, own, None)
        weights, recoloured = adapt_input_channels(weights, own, channels)
        report = compare(backbone, weights, path, notes + remark + prefix, adapted + recoloured)
        _check_share(report, own, key)
    copy_tensors(backbone, weights, report.matched)
    return report


def _check_share(report: LoadReport, own: dict, key: str) -> None:
    matched = set(report.matched) & set(own)
    if len(matched) < len(own) / 2:
        examples = [str(r) for r in report.reshaped] or list(report.missing)
        raise UserError(
            f"{report.source} is a checkpoint of another architecture: {len(matched)} of the backbone's {len(own)} "
            f"tensors fit, these do not: {', '.join(examples[:4])}. Nothing was loaded. Correct {key} or "
            "MODEL.BACKBONE.NAME."
        )


def _namings(weights: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], tuple[str, ...]]]:
    """The tensors under each set of names that they could have in a backbone, with remarks for the report."""
    for named, remark in _by_formats(weights):
        yield named, remark
        # timm's feature extractors call "layers.0" of the classifier "layers_0"
        yield {_FIRST_INDEX.sub(r"\1_\2.", name): value for name, value in named.items()}, remark


def _by_formats(weights: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], tuple[str, ...]]]:
    """As in the file, as ours, and as each program that has a name for what is ours."""
    yield weights, ()
    found = find_format(weights)
    ours, title = (weights, "ours") if found is None else (found.to_ours(weights), found.title)
    if found is not None:
        yield ours, (f"names of {title} read as ours",)
    if not any(name.startswith("backbone.") for name in ours):
        return
    for other in FORMATS:
        if other.whole or other.from_ours is None or other is found:
            continue
        try:
            yield other.from_ours(ours), (f"names of {title} read as those of {other.title}",)
        except UserError:  # another architecture's
            continue


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


def _in_order(
    weights: dict[str, torch.Tensor], own: dict, channels: int, path: str, key: str
) -> dict[str, torch.Tensor]:
    """The file's tensors under the backbone's names, by position; leftovers keep their own names."""
    theirs = [(name, value) for name, value in weights.items() if not name.endswith("num_batches_tracked")]
    result = dict(theirs[len(own) :])
    for i, (name, value) in enumerate(own.items()):
        found, tensor = theirs[i] if i < len(theirs) else ("nothing", torch.empty(0))
        same = tensor.shape == value.shape or is_input_of_colours(tensor, value, channels)
        if not same or found.rpartition(".")[2] != name.rpartition(".")[2]:
            raise UserError(
                f"{path} is a checkpoint of another architecture: no tensor name agrees with the backbone's, and in "
                f"order, tensor {i} is {found} {list(tensor.shape)} in the file and {name} {list(value.shape)} in the "
                f"backbone. Nothing was loaded. Correct {key} or MODEL.BACKBONE.NAME."
            )
        result[name] = tensor
    return result
