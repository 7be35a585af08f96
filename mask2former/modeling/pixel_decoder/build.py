"""Pixel decoders by recipe name; all keys they read are in MODEL.SEM_SEG_HEAD, or MODEL.MASK_FORMER where said."""

from __future__ import annotations

from mask2former.config import CfgNode
from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.pixel_decoder.fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from mask2former.modeling.pixel_decoder.msdeform import MSDeformAttnPixelDecoder
from mask2former.modeling.registry import PIXEL_DECODER
from mask2former.utils.errors import UserError


@PIXEL_DECODER.register(name="MSDeformAttnPixelDecoder")
def build_msdeform_pixel_decoder(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> MSDeformAttnPixelDecoder:
    head = cfg.MODEL.SEM_SEG_HEAD
    encoder_in = head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES
    if not encoder_in or any(name not in maps for name in encoder_in):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES is {list(encoder_in)}, but the backbone "
            f"gives {sorted(maps)} (those of MODEL.SEM_SEG_HEAD.IN_FEATURES)."
        )
    return MSDeformAttnPixelDecoder(
        maps,
        encoder_in=list(encoder_in),
        channels=head.CONVS_DIM,
        mask_channels=head.MASK_DIM,
        norm=head.NORM,
        common_stride=head.COMMON_STRIDE,
        num_layers=head.TRANSFORMER_ENC_LAYERS,
        num_heads=head.DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS,
        num_points=head.DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS,
        hidden_channels=head.TRANSFORMER_DIM_FEEDFORWARD,
        dropout=cfg.MODEL.MASK_FORMER.DROPOUT,
    )


@PIXEL_DECODER.register(name="BasePixelDecoder")
def build_base_pixel_decoder(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> BasePixelDecoder:
    _check_stride(cfg, maps)
    head = cfg.MODEL.SEM_SEG_HEAD
    return BasePixelDecoder(maps, channels=head.CONVS_DIM, mask_channels=head.MASK_DIM, norm=head.NORM)


@PIXEL_DECODER.register(name="TransformerEncoderPixelDecoder")
def build_transformer_encoder_pixel_decoder(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> TransformerEncoderPixelDecoder:
    _check_stride(cfg, maps)
    head, mask_former = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER
    if head.CONVS_DIM % 4 or head.CONVS_DIM % mask_former.NHEADS:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {head.CONVS_DIM}: expected a multiple of 4 and of "
            f"MODEL.MASK_FORMER.NHEADS, {mask_former.NHEADS}."
        )
    return TransformerEncoderPixelDecoder(
        maps,
        channels=head.CONVS_DIM,
        mask_channels=head.MASK_DIM,
        norm=head.NORM,
        num_layers=head.TRANSFORMER_ENC_LAYERS,
        # published: the encoder's layers are those of the query decoder
        num_heads=mask_former.NHEADS,
        hidden_channels=mask_former.DIM_FEEDFORWARD,
        dropout=mask_former.DROPOUT,
        pre_norm=mask_former.PRE_NORM,
    )


def _check_stride(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> None:
    finest, wanted = min(shape.stride for shape in maps.values()), cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE
    if finest != wanted:
        raise UserError(
            f"the finest map in MODEL.SEM_SEG_HEAD.IN_FEATURES has stride {finest}, but COMMON_STRIDE is {wanted}: "
            f"name a map of that stride, or set COMMON_STRIDE to {finest}."
        )
