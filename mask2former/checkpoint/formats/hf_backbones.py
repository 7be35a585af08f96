"""Hugging Face's ResNet and Swin: the names of their tensors, in classifiers, and as backbones of larger models.

Swin's files have the names of transformers 4, also those that transformers 5 writes; its modules have others in
memory. Both are read, the first are written. Sources: models/swin, models/resnet and conversion_mapping.py of
transformers 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mask2former.checkpoint.formats.backbones import backbone_format
from mask2former.checkpoint.formats.rules import Rule, Weights, joined, same
from mask2former.checkpoint.formats.swin import complete_windows

STAGES = range(4)
_COUNTER = "num_batches_tracked"
_INDEX = "relative_position_index"
_LAST_NORM = "layernorm"  # of their Swin, on the last map; our norms are one per map

# parts of a Swin block (ours, in files, in modules of transformers 5)
_BLOCK = (
    ("norm1.", "layernorm_before.", "layernorm_before."),
    ("attn.proj.", "attention.output.dense.", "attention.o_proj."),
    (
        "attn.relative_position_bias_table",
        "attention.self.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    ("norm2.", "layernorm_after.", "layernorm_after."),
    ("mlp.fc1.", "intermediate.dense.", "mlp.fc1."),
    ("mlp.fc2.", "output.dense.", "mlp.fc2."),
)
_QUERY_KEY_VALUE = (
    [f"attention.self.{part}" for part in ("query", "key", "value")],
    [f"attention.{part}_proj" for part in "qkv"],
)


def swin_rules(prefix: str) -> Iterator[Rule]:
    """Ours and theirs below `prefix`, without the norms of the feature maps, whose place differs from model to model.

    Names of files come first, since the first rule is the one that names what is written.
    """
    yield same("backbone.patch_embed.proj.", f"{prefix}embeddings.patch_embeddings.projection.")
    yield same("backbone.patch_embed.norm.", f"{prefix}embeddings.norm.")
    blocks, their_blocks = (f"{root}layers.{{i}}.blocks.{{j}}." for root in ("backbone.", f"{prefix}encoder."))
    for parts in _QUERY_KEY_VALUE:
        for leaf in ("weight", "bias"):
            yield joined(f"{blocks}attn.qkv.{leaf}", [f"{their_blocks}{part}.{leaf}" for part in parts])
    for ours, *names in _BLOCK:
        for theirs in dict.fromkeys(names):
            yield same(f"{blocks}{ours}", f"{their_blocks}{theirs}")
    yield same("backbone.layers.{i}.downsample.", f"{prefix}encoder.layers.{{i}}.downsample.")


def resnet_rules(prefix: str) -> Iterator[Rule]:
    """Ours and theirs below `prefix`; blocks are bottlenecks."""
    modules = [("stem.conv1", "embedder.embedder")]
    for stage in STAGES:
        ours, theirs = f"res{stage + 2}.{{i}}", f"encoder.stages.{stage}.layers.{{i}}"
        modules += [(f"{ours}.conv{c + 1}", f"{theirs}.layer.{c}") for c in range(3)]
        modules.append((f"{ours}.shortcut", f"{theirs}.shortcut"))
    for ours, theirs in modules:  # the norm first: its name with us begins with that of its convolution
        yield same(f"backbone.{ours}.norm.", f"{prefix}{theirs}.normalization.")
        yield same(f"backbone.{ours}.", f"{prefix}{theirs}.convolution.")


def used_only(weights: Mapping[str, Tensor], last_norm: str | None = None) -> Weights:
    """Their tensors that a result depends on: no batch counters, no indices, not the norm by the name `last_norm`."""
    idle = (_COUNTER, _INDEX) if last_norm is None else (_COUNTER, _INDEX, f"{last_norm}.weight", f"{last_norm}.bias")
    return {name: value for name, value in weights.items() if not name.endswith(idle)}


def without_indices(weights: Mapping[str, Tensor]) -> Weights:
    """Without what follows from a window's size."""
    return {name: value for name, value in weights.items() if not name.endswith(_INDEX)}


def with_counters(weights: Mapping[str, Tensor]) -> Weights:
    """With a counter of batches for each BatchNorm, as theirs has, though nothing depends on it; ours may be frozen."""
    counters = {}
    for name in weights:
        norm = name.removesuffix("running_mean")
        if norm != name:
            counters[norm + _COUNTER] = torch.tensor(0)
    return counters | weights


def idle_norm(name: str, like: Tensor) -> Weights:
    """A norm's tensors at their first values, for one that theirs has and does not use; `like` has its shape [C]."""
    return {f"{name}.weight": torch.ones_like(like), f"{name}.bias": torch.zeros_like(like)}


HF_RESNET = backbone_format(
    "transformers-resnet",
    "Hugging Face's ResNet",
    lambda weights: any(f"{prefix}embedder.embedder.convolution.weight" in weights for prefix in ("resnet.", "")),
    [*resnet_rules("resnet."), *resnet_rules("")],  # the classifier; the backbone alone
    complete=used_only,
)

HF_SWIN = backbone_format(
    "transformers-swin",
    "Hugging Face's Swin",
    lambda weights: any(
        f"{prefix}embeddings.patch_embeddings.projection.weight" in weights for prefix in ("swin.", "")
    ),
    [
        *swin_rules("swin."),
        *swin_rules(""),
        *(same(f"backbone.norm{stage}.", f"hidden_states_norms.stage{stage + 1}.") for stage in STAGES),
    ],
    complete=lambda weights: complete_windows(used_only(weights)),
    left_out=(_INDEX, *(f"backbone.norm{stage}.{leaf}" for stage in STAGES for leaf in ("weight", "bias"))),
)
