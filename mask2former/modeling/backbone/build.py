"""From a recipe to a backbone: the place where MODEL.BACKBONE and the section of each kind of backbone are read."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mask2former.config import CfgNode
from mask2former.modeling.backbone.dinat import DiNAT
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.modeling.layers.recompute import recompute_blocks
from mask2former.modeling.registry import BACKBONE
from mask2former.utils.errors import UserError


def build_backbone(cfg: CfgNode) -> nn.Module:
    """The backbone MODEL.BACKBONE.NAME names: a registered one, or ``timm/<model name>``."""
    image = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    name = cfg.MODEL.BACKBONE.NAME
    if name.startswith("timm/"):
        return TimmBackbone(
            name.removeprefix("timm/"),
            in_channels=image.channels,
            out_features=cfg.MODEL.TIMM.OUT_FEATURES,
            norm=cfg.MODEL.TIMM.NORM,
            freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
            drop_path=cfg.MODEL.TIMM.DROP_PATH_RATE,
            image_size=cfg.MODEL.TIMM.IMAGE_SIZE,
        )
    return BACKBONE.get(name)(cfg, image)


@BACKBONE.register(name="build_resnet_backbone")
def build_resnet(cfg: CfgNode, image: ShapeSpec) -> ResNet:
    """detectron2's ResNet: dilation in res5 only, no multi-grid."""
    return _resnet(cfg, image, "basic", (1, 1, 1, cfg.MODEL.RESNETS.RES5_DILATION), (1, 1, 1))


@BACKBONE.register(name="build_resnet_deeplab_backbone")
def build_resnet_deeplab(cfg: CfgNode, image: ShapeSpec) -> ResNet:
    """DeepLab's ResNet: the stem of STEM_TYPE, dilation in res4 and res5, multi-grid in res5."""
    resnets = cfg.MODEL.RESNETS
    dilations = (1, 1, resnets.RES4_DILATION, resnets.RES5_DILATION)
    return _resnet(cfg, image, resnets.STEM_TYPE, dilations, resnets.RES5_MULTI_GRID)


def _resnet(cfg: CfgNode, image: ShapeSpec, stem: str, dilations: Sequence[int], res5_grid: Sequence[int]) -> ResNet:
    resnets = cfg.MODEL.RESNETS
    if any(resnets.DEFORM_ON_PER_STAGE):
        raise UserError("MODEL.RESNETS.DEFORM_ON_PER_STAGE asks for deformable convolution, which is not offered.")
    return ResNet(
        depth=resnets.DEPTH,
        in_channels=image.channels,
        stem=stem,
        stem_channels=resnets.STEM_OUT_CHANNELS,
        res2_channels=resnets.RES2_OUT_CHANNELS,
        num_groups=resnets.NUM_GROUPS,
        width_per_group=resnets.WIDTH_PER_GROUP,
        norm=resnets.NORM,
        stride_in_1x1=resnets.STRIDE_IN_1X1,
        dilations=dilations,
        res5_grid=res5_grid,
        out_features=resnets.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )


@BACKBONE.register(name="D2SwinTransformer")
def build_swin(cfg: CfgNode, image: ShapeSpec) -> SwinTransformer:
    """Nothing of it is ever frozen: as in the published code, BACKBONE.FREEZE_AT is for ResNets alone."""
    swin = cfg.MODEL.SWIN
    backbone = SwinTransformer(
        in_channels=image.channels,
        patch=swin.PATCH_SIZE,
        channels=swin.EMBED_DIM,
        depths=swin.DEPTHS,
        num_heads=swin.NUM_HEADS,
        window=swin.WINDOW_SIZE,
        mlp_ratio=swin.MLP_RATIO,
        qkv_bias=swin.QKV_BIAS,
        qk_scale=swin.QK_SCALE,
        drop=swin.DROP_RATE,
        attn_drop=swin.ATTN_DROP_RATE,
        drop_path=swin.DROP_PATH_RATE,
        pretrain_size=swin.PRETRAIN_IMG_SIZE if swin.APE else None,
        patch_norm=swin.PATCH_NORM,
        out_features=swin.OUT_FEATURES,
    )
    if swin.USE_CHECKPOINT:
        recompute_blocks(backbone)
    return backbone


@BACKBONE.register(name="D2DiNAT")
def build_dinat(cfg: CfgNode, image: ShapeSpec) -> DiNAT:
    """Nothing of it is ever frozen: as in the published code, BACKBONE.FREEZE_AT is for ResNets alone."""
    dinat = cfg.MODEL.DINAT
    return DiNAT(
        in_channels=image.channels,
        channels=dinat.EMBED_DIM,
        depths=dinat.DEPTHS,
        num_heads=dinat.NUM_HEADS,
        kernel_size=dinat.KERNEL_SIZE,
        dilations=dinat.DILATIONS,
        mlp_ratio=dinat.MLP_RATIO,
        qkv_bias=dinat.QKV_BIAS,
        qk_scale=dinat.QK_SCALE,
        drop=dinat.DROP_RATE,
        attn_drop=dinat.ATTN_DROP_RATE,
        drop_path=dinat.DROP_PATH_RATE,
        layer_scale=dinat.LAYER_SCALE or None,  # 0 stands for none
        out_features=dinat.OUT_FEATURES,
    )
