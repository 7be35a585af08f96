"""Hugging Face's MaskFormerForInstanceSegmentation, with its Swin or ResNet, as its files name the tensors.

Files of transformers 4 and 5 have the same names; those that modules of transformers 5 have in memory are read, too.
Sources: models/maskformer and conversion_mapping.py of transformers 5.23. The final predictions are those of the
official code. Its auxiliary ones are not: they leave out the decoder's norm, and the first is of queries of zeros.
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
)
from mask2former.checkpoint.formats.hf_models import misfit
from mask2former.checkpoint.formats.rules import Rule, Weights, joined, same, to_ours, to_theirs
from mask2former.checkpoint.formats.swin import complete_windows
from mask2former.utils.errors import UserError

_ENCODER = "model.pixel_level_module.encoder."
_FPN = "model.pixel_level_module.decoder.fpn."
_MAP_NORMS = f"{_ENCODER}hidden_states_norms."
# of their Swin, on what no map is made of: MaskFormerSwinBackbone's, which is written, SwinBackbone's (files, memory)
_LAST_NORMS = [f"{_ENCODER}{prefix}layernorm" for prefix in ("model.", "", "swin.")]
_LEVELS = 4  # maps of the FPN, strides 4 to 32 (MaskFormer, sec. 4.1); theirs has no other number


def _backbone() -> Iterator[Rule]:
    """MaskFormerSwinBackbone, which is what they make of a Swin in config.json; SwinBackbone; ResNetBackbone."""
    for prefix, norm in (("model.", ""), ("", "stage"), ("swin.", "stage")):
        yield from swin_rules(f"{_ENCODER}{prefix}")
        for stage in STAGES:
            yield same(f"backbone.norm{stage}.", f"{_MAP_NORMS}{norm}{stage + 1 if norm else stage}.")
    yield same(
        "backbone.layers.{i}.blocks.{j}.attn.relative_position_index",
        f"{_ENCODER}model.encoder.layers.{{i}}.blocks.{{j}}.attention.self.relative_position_index",
    )
    yield from resnet_rules(_ENCODER)


def _fpn() -> Iterator[Rule]:
    """Ours counts from the finest map, theirs from the coarsest but one."""
    parts = [(f"layer_{_LEVELS}", "stem")]
    for number in range(1, _LEVELS):
        theirs = f"layers.{_LEVELS - 1 - number}"
        parts += [(f"adapter_{number}", f"{theirs}.proj"), (f"layer_{number}", f"{theirs}.block")]
    for ours, theirs in parts:  # the norm first, since its name begins with that of its convolution
        yield same(f"sem_seg_head.pixel_decoder.{ours}.norm.", f"{_FPN}{theirs}.1.")
        yield same(f"sem_seg_head.pixel_decoder.{ours}.", f"{_FPN}{theirs}.0.")


def _decoder() -> Iterator[Rule]:
    """DETR's layers; the name of files comes before that of modules, since the first is what is written."""
    ours = "sem_seg_head.predictor.transformer.decoder.layers.{i}."
    theirs = "model.transformer_module.decoder.layers.{i}."
    for attention, their_attention in (("self_attn", "self_attn"), ("multihead_attn", "encoder_attn")):
        for leaf in ("weight", "bias"):
            parts = [f"{theirs}{their_attention}.{part}_proj.{leaf}" for part in "qkv"]
            yield joined(f"{ours}{attention}.in_proj_{leaf}", parts)
        for name in ("out_proj", "o_proj"):
            yield same(f"{ours}{attention}.out_proj.", f"{theirs}{their_attention}.{name}.")
    for linear, mlp in (("linear1", "fc1"), ("linear2", "fc2")):
        for name in (mlp, f"mlp.{mlp}"):
            yield same(f"{ours}{linear}.", f"{theirs}{name}.")
    for norm, their_norm in (("norm1", "self_attn_layer_norm"), ("norm2", "encoder_attn_layer_norm")):
        yield same(f"{ours}{norm}.", f"{theirs}{their_norm}.")
    yield same(f"{ours}norm3.", f"{theirs}final_layer_norm.")


_HEADS = [
    same("sem_seg_head.pixel_decoder.mask_features.", "model.pixel_level_module.decoder.mask_projection."),
    same("sem_seg_head.predictor.transformer.decoder.norm.", "model.transformer_module.decoder.layernorm."),
    same("sem_seg_head.predictor.query_embed.", "model.transformer_module.queries_embedder."),
    same("sem_seg_head.predictor.input_proj.", "model.transformer_module.input_projection."),
    same("sem_seg_head.predictor.class_embed.", "class_predictor."),
    same("sem_seg_head.predictor.mask_embed.layers.{i}.", "mask_embedder.{i}.0."),
]


_RULES = [*_backbone(), *_fpn(), *_decoder(), *_HEADS]


_MARKS = {"model.transformer_module.queries_embedder.weight", f"{_FPN}stem.0.weight"}
_PARTS = {*_MARKS, "class_predictor.weight", "mask_embedder.0.0.weight"}
_FIRST_CONVOLUTIONS = (
    f"{_ENCODER}model.embeddings.patch_embeddings.projection.weight",
    f"{_ENCODER}embedder.embedder.convolution.weight",
)


def _recognises(weights: Mapping[str, Tensor]) -> bool:
    return weights.keys() >= _MARKS


def _to_ours(weights: Mapping[str, Tensor]) -> Weights:
    for norm in _LAST_NORMS:
        weights = used_only(weights, norm)
    return complete_windows(to_ours(weights, _RULES))


def _from_ours(weights: Mapping[str, Tensor]) -> Weights:
    theirs = to_theirs(weights, _RULES)
    problem = misfit(theirs, len(weights), _PARTS, _FIRST_CONVOLUTIONS)
    if problem:
        raise UserError(
            f"Hugging Face's MaskFormer cannot express this model: {problem}. It takes a Swin or a ResNet with the "
            "plain stem, BasePixelDecoder on four maps and StandardTransformerDecoder without encoder layers. Use "
            "--to official."
        )
    norm = theirs.get(f"{_MAP_NORMS}{STAGES[-1]}.weight")
    return with_counters({**theirs, **({} if norm is None else idle_norm(_LAST_NORMS[0], norm))})


HF_MASKFORMER = Format(
    name="transformers-maskformer",
    title="Hugging Face MaskFormer",
    whole=True,
    recognises=_recognises,
    to_ours=_to_ours,
    from_ours=_from_ours,
)
