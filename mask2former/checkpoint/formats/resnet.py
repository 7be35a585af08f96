"""ResNet classifiers: torchvision's and timm's, detectron2's backbones, and Caffe2's that detectron2 began with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mask2former.checkpoint.formats.backbones import backbone_format
from mask2former.checkpoint.formats.rules import Rule, Weights, same

_EPS = 1e-5  # of our norms, as of torch's
_BLOCK = re.compile(r"layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])\.\w+")


def _layers(stem: Iterable[tuple[str, str, str]]) -> tuple[Rule, ...]:
    """torchvision's names below a stem of (our convolution, theirs, their norm).

    A norm comes before its convolution, whose name is the beginning of it with us.
    """
    modules = list(stem)
    for n in range(1, 5):
        ours, theirs = f"res{n + 1}.{{i}}", f"layer{n}.{{i}}"
        modules += [(f"{ours}.conv{c}", f"{theirs}.conv{c}", f"{theirs}.bn{c}") for c in (1, 2, 3)]
        modules.append((f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1"))
    return tuple(
        same(f"backbone.{ours}.", f"{theirs}.")
        for conv, their_conv, their_norm in modules
        for ours, theirs in ((f"{conv}.norm", their_norm), (conv, their_conv))
    )


def _is_bottleneck(weights: Mapping[str, Tensor]) -> bool:
    """Three convolutions in a block, a shortcut that is a convolution (ResNet-D pools before it), and nothing else.

    What networks with attention to channels have besides (`se`) changes all that they compute.
    """
    if not {"layer1.0.conv3.weight", "layer1.0.downsample.0.weight", "bn1.weight"} <= weights.keys():
        return False
    return all(_BLOCK.fullmatch(name) for name in weights if name.startswith("layer"))


def _without_counters(weights: Weights) -> Weights:
    """Without BatchNorm's update counters, which only averaging BatchNorms would read."""
    return {name: value for name, value in weights.items() if not name.endswith(".num_batches_tracked")}


TORCHVISION = backbone_format(
    "torchvision-resnet",
    "torchvision's or timm's ResNet",
    lambda weights: _is_bottleneck(weights) and "conv1.weight" in weights,
    _layers([("stem.conv1", "conv1", "bn1")]),
    complete=_without_counters,
    left_out=(".num_batches_tracked",),
)

# timm's resnet50c and such: three 3x3 convolutions, as in DeepLab's
TIMM_DEEP_STEM = backbone_format(
    "timm-resnetc",
    "timm's ResNet-C",
    lambda weights: _is_bottleneck(weights) and "conv1.6.weight" in weights,
    _layers(
        [
            ("stem.conv1", "conv1.0", "conv1.1"),
            ("stem.conv2", "conv1.3", "conv1.4"),
            ("stem.conv3", "conv1.6", "bn1"),
        ]
    ),
    complete=_without_counters,
    left_out=(".num_batches_tracked",),
)

DETECTRON2 = backbone_format(
    "detectron2-resnet",
    "detectron2's ResNet",
    lambda weights: {"stem.conv1.weight", "res2.0.conv1.weight"} <= weights.keys(),
    [same(f"backbone.{module}.", f"{module}.") for module in ("stem.conv{i}", "res2", "res3", "res4", "res5")],
    complete=_without_counters,
    left_out=(".num_batches_tracked",),
)


def _caffe2() -> list[Rule]:
    """Names of detectron2://ImageNetPretrained/MSRA/R-50.pkl, as detectron2's checkpoint/c2_model_loading.py reads."""
    modules = [("stem.conv1", "conv1", "res_conv1")]
    for n in range(2, 6):
        for ours, branch in (("shortcut", "1"), ("conv1", "2a"), ("conv2", "2b"), ("conv3", "2c")):
            theirs = f"res{n}_{{i}}_branch{branch}"
            modules.append((f"res{n}.{{i}}.{ours}", theirs, theirs))
    leaves = [("weight", "s"), ("bias", "b"), ("running_mean", "rm"), ("running_var", "riv")]
    rules = []
    for ours, conv, norm in modules:
        rules.append(same(f"backbone.{ours}.weight", f"{conv}_w"))
        rules += [same(f"backbone.{ours}.norm.{leaf}", f"{norm}_bn_{letter}") for leaf, letter in leaves]
    return rules


def _with_statistics(weights: Weights) -> Weights:
    """Norms of those files are a factor and a term alone: statistics that change nothing are added.

    What the training of Detectron-1 keeps beside each tensor is dropped.
    """
    weights = {name: value for name, value in weights.items() if not name.endswith("_momentum")}
    created = {}
    for name, factor in weights.items():
        module = name.removesuffix(".norm.weight")
        if module != name:
            created[f"{module}.norm.running_mean"] = torch.zeros_like(factor)
            created[f"{module}.norm.running_var"] = torch.full_like(factor, 1 - _EPS)
    return {**created, **weights}


CAFFE2 = backbone_format(
    "caffe2-resnet",
    "Caffe2's ResNet",
    lambda weights: {"conv1_w", "res2_0_branch2a_w"} <= weights.keys(),
    _caffe2(),
    complete=_with_statistics,
    writes=False,
)
