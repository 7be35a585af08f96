"""Hugging Face's Mask2FormerForUniversalSegmentation, with its Swin or ResNet, as its files name the tensors.

Files of transformers 4 and 5 have the same names, but for one norm that nothing uses and the indices of windows; the
names that modules of transformers 5 have in memory are read, too. All predictions are those of the official code.
transformers 4 neither writes nor reads the projections between decoders of unlike widths, which no published model
has. Source: models/mask2former of transformers 4.57 and 5.23.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.hf_backbones import (
    STAGES,
    idle_norm,
    resnet_rules,
    swin_rules,
    used_only,
    with_counters,
    without_indices,
)
from mask2former.checkpoint.formats.hf_models import misfit
from mask2former.checkpoint.formats.rules import Rule, Weights, joined, same, to_ours, to_theirs
from mask2former.checkpoint.formats.swin import complete_windows
from mask2former.utils.errors import UserError

_ENCODER = "model.pixel_level_module.encoder."
_DECODER = "model.pixel_level_module.decoder."
_TRANSFORMER = "model.transformer_module."
_MAP_NORMS = f"{_ENCODER}hidden_states_norms.stage"
_LAST_NORM = f"{_ENCODER}swin.layernorm"  # not in files of transformers 4
_LEVELS = 3  # maps of the deformable encoder (Mask2Former, sec. 3.2.1); theirs has no other number


def _backbone() -> Iterator[Rule]:
    for prefix in (_ENCODER, f"{_ENCODER}swin."):
        yield from swin_rules(prefix)
    for stage in STAGES:
        yield same(f"backbone.norm{stage}.", f"{_MAP_NORMS}{stage + 1}.")
    yield from resnet_rules(_ENCODER)


def _pixel_decoder() -> Iterator[Rule]:
    ours = "sem_seg_head.pixel_decoder."
    layer, their_layer = f"{ours}transformer.encoder.layers.{{i}}.", f"{_DECODER}encoder.layers.{{i}}."
    for part, their_part in (
        ("self_attn", "self_attn"),
        ("norm1", "self_attn_layer_norm"),
        ("linear1", "fc1"),
        ("linear2", "fc2"),
        ("norm2", "final_layer_norm"),
    ):
        yield same(f"{layer}{part}.", f"{their_layer}{their_part}.")
    yield same(f"{ours}transformer.level_embed", f"{_DECODER}level_embed")
    yield same(f"{ours}input_proj.", f"{_DECODER}input_projections.")
    for part in ("adapter_1", "layer_1"):  # the norm first: its name with us begins with that of its convolution
        yield same(f"{ours}{part}.norm.", f"{_DECODER}{part}.1.")
        yield same(f"{ours}{part}.", f"{_DECODER}{part}.0.")
    yield same(f"{ours}mask_features.", f"{_DECODER}mask_projection.")


def _predictor() -> Iterator[Rule]:
    """Theirs keeps the image's attention as torch's module, and has that among queries in three parts."""
    ours, layer = "sem_seg_head.predictor.", f"{_TRANSFORMER}decoder.layers.{{i}}."
    cross, own, ffn = (
        f"{ours}transformer_{part}_layers.{{i}}." for part in ("cross_attention", "self_attention", "ffn")
    )
    yield same(f"{cross}multihead_attn.", f"{layer}cross_attn.")
    yield same(f"{cross}norm.", f"{layer}cross_attn_layer_norm.")
    for leaf in ("weight", "bias"):
        yield joined(f"{own}self_attn.in_proj_{leaf}", [f"{layer}self_attn.{part}_proj.{leaf}" for part in "qkv"])
    yield same(f"{own}self_attn.out_proj.", f"{layer}self_attn.out_proj.")
    yield same(f"{own}norm.", f"{layer}self_attn_layer_norm.")
    yield same(f"{ffn}linear1.", f"{layer}fc1.")
    yield same(f"{ffn}linear2.", f"{layer}fc2.")
    yield same(f"{ffn}norm.", f"{layer}final_layer_norm.")
    for name, their_name in (
        ("decoder_norm.", "decoder.layernorm."),
        ("mask_embed.layers.{i}.", "decoder.mask_predictor.mask_embedder.{i}.0."),
        ("query_feat.", "queries_features."),
        ("query_embed.", "queries_embedder."),
        ("level_embed.", "level_embed."),
        ("input_proj.", "input_projections."),
    ):
        yield same(f"{ours}{name}", f"{_TRANSFORMER}{their_name}")
    yield same(f"{ours}class_embed.", "class_predictor.")


_RULES = [*_backbone(), *_pixel_decoder(), *_predictor()]
_MARKS = {f"{_TRANSFORMER}queries_features.weight", f"{_DECODER}level_embed"}
_FIRST_CONVOLUTIONS = (
    f"{_ENCODER}embeddings.patch_embeddings.projection.weight",
    f"{_ENCODER}embedder.embedder.convolution.weight",
)


def _recognises(weights: Mapping[str, Tensor]) -> bool:
    return weights.keys() >= _MARKS


def _to_ours(weights: Mapping[str, Tensor]) -> Weights:
    return complete_windows(to_ours(used_only(weights, _LAST_NORM), _RULES))


def _from_ours(weights: Mapping[str, Tensor]) -> Weights:
    theirs = without_indices(to_theirs(weights, _RULES))
    problem = misfit(theirs, len(weights), {*_MARKS, "class_predictor.weight"}, _FIRST_CONVOLUTIONS)
    if not problem and (levels := len(theirs[f"{_DECODER}level_embed"])) != _LEVELS:
        problem = f"its pixel decoder has {levels} levels"
    if problem:
        raise UserError(
            f"Hugging Face's Mask2Former cannot express this model: {problem}. It takes a Swin or a ResNet with the "
            "plain stem, MSDeformAttnPixelDecoder on three of four maps and MultiScaleMaskedTransformerDecoder. Use "
            "--to official."
        )
    norm = theirs.get(f"{_MAP_NORMS}{STAGES[-1] + 1}.weight")
    return with_counters({**theirs, **({} if norm is None else idle_norm(_LAST_NORM, norm))})


HF_MASK2FORMER = Format(
    name="transformers-mask2former",
    title="Hugging Face Mask2Former",
    whole=True,
    recognises=_recognises,
    to_ours=_to_ours,
    from_ours=_from_ours,
)
