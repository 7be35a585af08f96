"""Registries by which recipes name the parts of a model.

An entry is a callable that takes the recipe (and what its table says) and returns a module or function:

META_ARCH            builder(cfg, labels: LabelSet | None) -> model
BACKBONE             builder(cfg, ShapeSpec of the image) -> module with ``output_shape() -> {name: ShapeSpec}``
SEM_SEG_HEADS        builder(cfg, {name: ShapeSpec}) -> module (maps, frames, every_layer) -> QueryPredictions; of
                     SemanticSegmentor: (maps, every_layer) -> class logits [L,B,K,h,w]
PIXEL_DECODER        builder(cfg, {name: ShapeSpec}) -> module (maps) -> (mask features, memory maps)
TRANSFORMER_DECODER  builder(cfg, in_channels, mask_channels) -> module
LOSS                 function(logits [N,P], labels [N,P], normalizer) -> scalar, added with a weight by
                     MODEL.MASK_FORMER.EXTRA_LOSSES
"""

from __future__ import annotations

from mask2former.utils.registry import Registry

META_ARCH = Registry("META_ARCH")
BACKBONE = Registry("BACKBONE")
SEM_SEG_HEADS = Registry("SEM_SEG_HEADS")
PIXEL_DECODER = Registry("PIXEL_DECODER")
TRANSFORMER_DECODER = Registry("TRANSFORMER_DECODER")
LOSS = Registry("LOSS")
