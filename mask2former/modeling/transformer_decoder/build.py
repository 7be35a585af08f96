"""Query decoders by recipe name; the keys they read are in MODEL.MASK_FORMER."""

from __future__ import annotations

from mask2former.config import CfgNode
from mask2former.modeling.registry import TRANSFORMER_DECODER
from mask2former.modeling.transformer_decoder.masked import MultiScaleMaskedTransformerDecoder
from mask2former.modeling.transformer_decoder.standard import StandardTransformerDecoder
from mask2former.utils.errors import UserError


@TRANSFORMER_DECODER.register(name="MultiScaleMaskedTransformerDecoder")
def build_masked_decoder(
    cfg: CfgNode, in_channels: int, mask_channels: int, temporal: bool = False
) -> MultiScaleMaskedTransformerDecoder:
    mask_former = cfg.MODEL.MASK_FORMER
    if mask_former.TRANSFORMER_IN_FEATURE != "multi_scale_pixel_decoder":
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is '{mask_former.TRANSFORMER_IN_FEATURE}', but "
            f"{mask_former.TRANSFORMER_DECODER_NAME} attends to 'multi_scale_pixel_decoder'. For one map, as in "
            "MaskFormer, set TRANSFORMER_DECODER_NAME to StandardTransformerDecoder (see "
            "configs/common/maskformer.yaml)."
        )
    _check_width(mask_former)
    projects = in_channels != mask_former.HIDDEN_DIM or mask_former.ENFORCE_INPUT_PROJ
    least = 4 if projects else 2  # a projection that no layer uses would get no gradient
    if mask_former.DEC_LAYERS < least:
        raise UserError(
            f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}: expected at least {least} (the prediction "
            "from the queries, and a layer for each map of the memory that is used)."
        )
    return MultiScaleMaskedTransformerDecoder(
        in_channels,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        hidden_channels=mask_former.HIDDEN_DIM,
        num_queries=mask_former.NUM_OBJECT_QUERIES,
        num_heads=mask_former.NHEADS,
        hidden_ffn_channels=mask_former.DIM_FEEDFORWARD,
        num_layers=mask_former.DEC_LAYERS - 1,  # the published count includes the query prediction
        mask_channels=mask_channels,
        # published recipes' decoder layers have no dropout whatever the key says; the pixel decoder's obeys it
        dropout=0.0,
        pre_norm=mask_former.PRE_NORM,
        enforce_input_proj=mask_former.ENFORCE_INPUT_PROJ,
        temporal=temporal,
    )


@TRANSFORMER_DECODER.register(name="VideoMultiScaleMaskedTransformerDecoder")
def build_video_decoder(cfg: CfgNode, in_channels: int, mask_channels: int) -> MultiScaleMaskedTransformerDecoder:
    return build_masked_decoder(cfg, in_channels, mask_channels, temporal=True)


@TRANSFORMER_DECODER.register(name="StandardTransformerDecoder")
def build_standard_decoder(
    cfg: CfgNode, in_channels: int, mask_channels: int, predicts_classes: bool = True
) -> StandardTransformerDecoder:
    mask_former = cfg.MODEL.MASK_FORMER
    if mask_former.TRANSFORMER_IN_FEATURE == "multi_scale_pixel_decoder":
        raise UserError(
            "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is 'multi_scale_pixel_decoder', but StandardTransformerDecoder "
            "attends to one map: 'transformer_encoder', 'pixel_embedding', or a backbone map such as 'res5'."
        )
    _check_width(mask_former)
    if mask_former.DEC_LAYERS < 1:
        raise UserError(f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}: expected at least 1.")
    return StandardTransformerDecoder(
        in_channels,
        num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES if predicts_classes else None,
        hidden_channels=mask_former.HIDDEN_DIM,
        num_queries=mask_former.NUM_OBJECT_QUERIES,
        num_heads=mask_former.NHEADS,
        hidden_ffn_channels=mask_former.DIM_FEEDFORWARD,
        encoder_layers=mask_former.ENC_LAYERS,
        num_layers=mask_former.DEC_LAYERS,
        mask_channels=mask_channels,
        dropout=mask_former.DROPOUT,
        pre_norm=mask_former.PRE_NORM,
        enforce_input_proj=mask_former.ENFORCE_INPUT_PROJ,
    )


def _check_width(mask_former: CfgNode) -> None:
    if mask_former.HIDDEN_DIM % mask_former.NHEADS or mask_former.HIDDEN_DIM % 4:
        raise UserError(
            f"MODEL.MASK_FORMER.HIDDEN_DIM is {mask_former.HIDDEN_DIM}: expected a multiple of 4 and of NHEADS, "
            f"{mask_former.NHEADS}."
        )
