"""Tensor names of other programs -> ours."""

from __future__ import annotations

import re
from collections.abc import Callable

# torchvision's ResNet: conv1 bn1 layer1.0.{conv1 bn1 conv2 bn2 conv3 bn3 downsample.0 downsample.1}
_TORCHVISION_MODULES = [
    (re.compile(r"^conv1\."), "backbone.stem.conv1."),
    (re.compile(r"^bn1\."), "backbone.stem.conv1.norm."),
    (re.compile(r"^layer(\d)\.(\d+)\.conv(\d)\."), lambda m: f"backbone.res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
    (re.compile(r"^layer(\d)\.(\d+)\.bn(\d)\."), lambda m: f"backbone.res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
    (re.compile(r"^layer(\d)\.(\d+)\.downsample\.0\."), lambda m: f"backbone.res{int(m[1]) + 1}.{m[2]}.shortcut."),
    (re.compile(r"^layer(\d)\.(\d+)\.downsample\.1\."), lambda m: f"backbone.res{int(m[1]) + 1}.{m[2]}.shortcut.norm."),
]


def _from_torchvision(name: str) -> str:
    for pattern, ours in _TORCHVISION_MODULES:
        renamed, count = pattern.subn(ours, name)
        if count:
            return renamed
    return name


def _from_detectron2_backbone(name: str) -> str:
    return f"backbone.{name}" if re.match(r"(stem|res[2-5])\.", name) else name


def _without_wrapper(name: str) -> str:
    return name.removeprefix("module.")


# names in checkpoints published before the release of Mask2Former -> ours
_OLDER = [
    (re.compile(r"^(.*\.)?static_query\."), r"\1query_feat."),
    (re.compile(r"^sem_seg_head\.(?!predictor\.|pixel_decoder\.)"), "sem_seg_head.pixel_decoder."),
]


def _from_older(name: str, model_names: set[str]) -> str:
    """Renamed where the model has the new name only: a name that it knows stays."""
    for pattern, ours in _OLDER:
        renamed = pattern.sub(ours, name)
        if name not in model_names and renamed in model_names:
            return renamed
    return name


# what a file of that kind has -> how its names become ours, and what the report says
_STYLES: list[tuple[Callable[[set[str]], bool], Callable[[str], str], str]] = [
    (
        lambda names: {"conv1.weight", "layer1.0.conv1.weight"} <= names,
        _from_torchvision,
        "torchvision's ResNet names read as backbone.*",
    ),
    (
        lambda names: {"stem.conv1.weight", "res2.0.conv1.weight"} <= names,
        _from_detectron2_backbone,
        "detectron2's backbone names read as backbone.*",
    ),
]


def convert_names(weights: dict, model_names: set[str]) -> tuple[dict, tuple[str, ...]]:
    """Give tensors the names they have in our models.

    Args:
        weights: name in the file -> tensor.
        model_names: the model's own names; a file that has most of them already is left alone.

    Returns:
        The tensors under new names, and remarks for the report.
    """
    notes: tuple[str, ...] = ()
    if weights and all(name.startswith("module.") for name in weights):
        weights = {_without_wrapper(name): value for name, value in weights.items()}
        notes += ("prefix 'module.' of a distributed wrapper removed",)
    older = {_from_older(name, model_names): value for name, value in weights.items()}
    if len(older) == len(weights) and set(older) != set(weights):
        notes += (f"{len(set(weights) - set(older))} names of an older release read as today's",)
        weights = older
    if sum(name in model_names for name in weights) > len(weights) / 2:
        return weights, notes
    names = set(weights)
    for has_style, rename, remark in _STYLES:
        if has_style(names):
            return {rename(name): value for name, value in weights.items()}, (*notes, remark)
    return weights, notes
