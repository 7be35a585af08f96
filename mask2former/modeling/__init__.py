"""Models: backbones, decoders, losses and post-processing, tied together by a recipe."""

from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.build import build_model
from mask2former.modeling.registry import (
    BACKBONE,
    LOSS,
    META_ARCH,
    PIXEL_DECODER,
    SEM_SEG_HEADS,
    TRANSFORMER_DECODER,
)

__all__ = [
    "BACKBONE",
    "LOSS",
    "META_ARCH",
    "PIXEL_DECODER",
    "SEM_SEG_HEADS",
    "TRANSFORMER_DECODER",
    "ShapeSpec",
    "build_model",
]
