"""From a recipe to a model. Backbones and decoders have a ``build.py`` beside them; the rest of MODEL is read here."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mask2former.config import CfgNode
from mask2former.modeling import losses
from mask2former.modeling.backbone.build import build_backbone
from mask2former.modeling.backbone.shape import ShapeSpec
from mask2former.modeling.criterion import LossTerm, SetCriterion
from mask2former.modeling.heads import MEMORY_SOURCES, MaskFormerHead
from mask2former.modeling.layers.recompute import recompute_blocks
from mask2former.modeling.maskformer import InferenceSettings, MaskFormer
from mask2former.modeling.matcher import HungarianMatcher
from mask2former.modeling.per_pixel import PerPixelBaselineHead, PerPixelBaselinePlusHead, SemanticSegmentor
from mask2former.modeling.pixel_decoder import build as _pixel_decoders  # noqa: F401  (fills PIXEL_DECODER)
from mask2former.modeling.registry import LOSS, META_ARCH, PIXEL_DECODER, SEM_SEG_HEADS, TRANSFORMER_DECODER
from mask2former.modeling.sampling import AllPixels, PointSampling, Sampling
from mask2former.modeling.transformer_decoder.build import build_standard_decoder
from mask2former.modeling.video import VideoMaskFormer
from mask2former.modeling.windows import WindowTracker
from mask2former.ops.mask_losses import cross_entropy_cost, focal_cost
from mask2former.structures import LabelSet, builtin_labels
from mask2former.utils.errors import UserError
from mask2former.utils.text import some, suggest

COMPILED_PARTS = ("backbone", "sem_seg_head")  # matching and post-processing follow the data, not a graph
PER_PIXEL_HEADS = ("PerPixelBaselineHead", "PerPixelBaselinePlusHead")
# MODEL.MASK_FORMER.MASK_LOSS -> what MASK_WEIGHT weighs in the loss, and in matching
MASK_LOSSES = {
    "cross_entropy": (losses.sigmoid_cross_entropy, cross_entropy_cost),
    "focal": (losses.sigmoid_focal, focal_cost),
}


def build_model(cfg: CfgNode, labels: LabelSet | None = None) -> nn.Module:
    """The model a recipe describes, with random weights, on MODEL.DEVICE, in training mode.

    labels  the classes: which of them have instances, and their names for CLASS_WEIGHTS; None: those of the first
            training data set where it is a published one, else unknown
    """
    if labels is None and cfg.DATASETS.TRAIN:
        labels = builtin_labels(cfg.DATASETS.TRAIN[0])
    model = META_ARCH.get(cfg.MODEL.META_ARCHITECTURE)(cfg, labels).to(cfg.MODEL.DEVICE)
    on_cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"
    if on_cpu if cfg.MODEL.CHANNELS_LAST is None else cfg.MODEL.CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)  # maps follow the layout of the convolutions' weights
    if cfg.MODEL.ACTIVATION_CHECKPOINTING:
        recompute_blocks(model)
    if cfg.MODEL.COMPILE:
        for part in COMPILED_PARTS:
            getattr(model, part).compile()
    return model


@META_ARCH.register(name="MaskFormer")
def build_maskformer(cfg: CfgNode, labels: LabelSet | None) -> MaskFormer:
    return MaskFormer(**_parts(cfg, labels))


@META_ARCH.register(name="VideoMaskFormer")
def build_video_maskformer(cfg: CfgNode, labels: LabelSet | None) -> VideoMaskFormer:
    results, test = cfg.MODEL.MASK_FORMER.TEST, cfg.TEST
    if results.SEMANTIC_ON or results.PANOPTIC_ON or not results.INSTANCE_ON:
        raise UserError(
            "MODEL.META_ARCHITECTURE VideoMaskFormer gives tracks of instances alone: in MODEL.MASK_FORMER.TEST set "
            "INSTANCE_ON to True, SEMANTIC_ON and PANOPTIC_ON to False."
        )
    if test.DETECTIONS_PER_VIDEO < 1:
        raise UserError(f"TEST.DETECTIONS_PER_VIDEO is {test.DETECTIONS_PER_VIDEO}: expected at least 1.")
    if test.WINDOW_SIZE < 0 or test.WINDOW_OVERLAP < 0 or 0 < test.WINDOW_SIZE <= test.WINDOW_OVERLAP:
        raise UserError(
            f"TEST.WINDOW_SIZE is {test.WINDOW_SIZE} and TEST.WINDOW_OVERLAP {test.WINDOW_OVERLAP}: expected 0 (the "
            "whole video at once) or a number of frames above the overlap, and an overlap of 0 or more."
        )
    tracker = WindowTracker(test.WINDOW_SIZE, test.WINDOW_OVERLAP, test.DETECTIONS_PER_VIDEO)
    return VideoMaskFormer(tracker=tracker, **_parts(cfg, labels))


def _parts(cfg: CfgNode, labels: LabelSet | None) -> dict[str, Any]:
    """What models of images and of clips are made of."""
    _check_pixels(cfg)
    if cfg.MODEL.SEM_SEG_HEAD.NAME in PER_PIXEL_HEADS:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NAME {cfg.MODEL.SEM_SEG_HEAD.NAME} classifies pixels: set MODEL.META_ARCHITECTURE to "
            "SemanticSegmentor, or NAME to MaskFormerHead."
        )
    thing_ids = labels.thing_ids if labels else ()
    beyond = [i for i in sorted(thing_ids) if not 0 <= i < cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES]
    if beyond:
        raise UserError(
            f"{len(beyond)} of the data set's {len(thing_ids)} thing classes do not fit "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES, {cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES}: {some(beyond)}. Set it to the "
            "number of classes."
        )
    backbone = build_backbone(cfg)
    mask_former = cfg.MODEL.MASK_FORMER
    head = SEM_SEG_HEADS.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, backbone.output_shape())
    return {
        "backbone": backbone,
        "sem_seg_head": head,
        "criterion": build_criterion(cfg, labels),
        "pixel_mean": cfg.MODEL.PIXEL_MEAN,
        "pixel_std": cfg.MODEL.PIXEL_STD,
        "size_divisibility": mask_former.SIZE_DIVISIBILITY,
        "deep_supervision": mask_former.DEEP_SUPERVISION,
        "thing_ids": thing_ids,
        "inference": _inference_settings(cfg),
    }


def _inference_settings(cfg: CfgNode) -> InferenceSettings:
    test = cfg.MODEL.MASK_FORMER.TEST
    return InferenceSettings(
        semantic=test.SEMANTIC_ON,
        panoptic=test.PANOPTIC_ON,
        instance=test.INSTANCE_ON,
        score_threshold=test.OBJECT_MASK_THRESHOLD,
        overlap_threshold=test.OVERLAP_THRESHOLD,
        fill=test.PANOPTIC_FILL,
        top_k=cfg.TEST.DETECTIONS_PER_IMAGE,
        # segments and instances are decided per pixel of the result, so their masks are resized before
        resize_first=test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE or test.PANOPTIC_ON or test.INSTANCE_ON,
    )


@META_ARCH.register(name="SemanticSegmentor")
def build_semantic_segmentor(cfg: CfgNode, labels: LabelSet | None) -> SemanticSegmentor:
    _check_pixels(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.NAME == "MaskFormerHead":
        raise UserError(
            "MODEL.META_ARCHITECTURE SemanticSegmentor classifies pixels, but MODEL.SEM_SEG_HEAD.NAME is "
            f"MaskFormerHead: set it to one of {sorted(PER_PIXEL_HEADS)}, or META_ARCHITECTURE to MaskFormer."
        )
    test = cfg.MODEL.MASK_FORMER.TEST
    if test.PANOPTIC_ON or test.INSTANCE_ON or not test.SEMANTIC_ON:
        raise UserError(
            "MODEL.META_ARCHITECTURE SemanticSegmentor gives semantic results alone: in MODEL.MASK_FORMER.TEST set "
            "SEMANTIC_ON to True, PANOPTIC_ON and INSTANCE_ON to False."
        )
    backbone = build_backbone(cfg)
    return SemanticSegmentor(
        backbone=backbone,
        sem_seg_head=SEM_SEG_HEADS.get(head.NAME)(cfg, backbone.output_shape()),
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
        size_divisibility=0,  # published: as detectron2's ResNet, whose batches are padded to the largest image
        deep_supervision=cfg.MODEL.MASK_FORMER.DEEP_SUPERVISION,
        stride=head.COMMON_STRIDE,
        ignore_label=head.IGNORE_VALUE,
        loss_weight=head.LOSS_WEIGHT,
    )


def _check_pixels(cfg: CfgNode) -> None:
    if len(cfg.MODEL.PIXEL_MEAN) != len(cfg.MODEL.PIXEL_STD):
        raise UserError(
            f"MODEL.PIXEL_MEAN has {len(cfg.MODEL.PIXEL_MEAN)} values and MODEL.PIXEL_STD has "
            f"{len(cfg.MODEL.PIXEL_STD)}: both need one per image channel."
        )


@SEM_SEG_HEADS.register(name="MaskFormerHead")
def build_maskformer_head(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> MaskFormerHead:
    pixel_decoder = build_pixel_decoder(cfg, maps)
    decoder = TRANSFORMER_DECODER.get(cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME)
    predictor = decoder(cfg, _memory_channels(cfg, maps, pixel_decoder), pixel_decoder.mask_channels)
    return MaskFormerHead(pixel_decoder, predictor, cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE)


@SEM_SEG_HEADS.register(name="PerPixelBaselineHead")
def build_per_pixel_head(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> PerPixelBaselineHead:
    return PerPixelBaselineHead(build_pixel_decoder(cfg, maps), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)


@SEM_SEG_HEADS.register(name="PerPixelBaselinePlusHead")
def build_per_pixel_plus_head(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> PerPixelBaselinePlusHead:
    mask_former, num_classes = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if mask_former.NUM_OBJECT_QUERIES != num_classes:
        raise UserError(
            f"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES is {mask_former.NUM_OBJECT_QUERIES}: PerPixelBaselinePlusHead has "
            f"one query per class, so set it to MODEL.SEM_SEG_HEAD.NUM_CLASSES, {num_classes}."
        )
    pixel_decoder = build_pixel_decoder(cfg, maps)
    in_channels = _memory_channels(cfg, maps, pixel_decoder)
    # published: always this decoder, whatever TRANSFORMER_DECODER_NAME says
    predictor = build_standard_decoder(cfg, in_channels, pixel_decoder.mask_channels, predicts_classes=False)
    return PerPixelBaselinePlusHead(pixel_decoder, predictor, mask_former.TRANSFORMER_IN_FEATURE)


def build_pixel_decoder(cfg: CfgNode, maps: dict[str, ShapeSpec]) -> nn.Module:
    """The pixel decoder MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME names, on the maps of IN_FEATURES."""
    head = cfg.MODEL.SEM_SEG_HEAD
    if not head.IN_FEATURES or any(name not in maps for name in head.IN_FEATURES):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {list(head.IN_FEATURES)}, but the backbone gives {sorted(maps)}."
        )
    return PIXEL_DECODER.get(head.PIXEL_DECODER_NAME)(cfg, {name: maps[name] for name in head.IN_FEATURES})


def _memory_channels(cfg: CfgNode, maps: dict[str, ShapeSpec], pixel_decoder: nn.Module) -> int:
    """Width of what the queries attend to."""
    source = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    if source in maps:
        return maps[source].channels
    if source not in MEMORY_SOURCES:
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is '{source}': expected one of {', '.join(MEMORY_SOURCES)}, or "
            f"a map of the backbone, {', '.join(sorted(maps))}."
        )
    if source == "pixel_embedding":
        return pixel_decoder.mask_channels
    needed = 3 if source == "multi_scale_pixel_decoder" else 1
    if getattr(pixel_decoder, "num_memory_levels", needed) < needed:
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is '{source}', but {cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME} "
            f"gives the queries {pixel_decoder.num_memory_levels} maps: choose another PIXEL_DECODER_NAME, or a map "
            "of the backbone such as 'res5'."
        )
    return pixel_decoder.channels


def build_criterion(cfg: CfgNode, labels: LabelSet | None = None) -> SetCriterion:
    mask_former = cfg.MODEL.MASK_FORMER
    _check_criterion(mask_former)
    mask_loss, mask_cost = MASK_LOSSES[mask_former.MASK_LOSS]
    sampling = _sampling(mask_former)
    terms = [
        LossTerm("mask", float(mask_former.MASK_WEIGHT), mask_loss),
        LossTerm("dice", float(mask_former.DICE_WEIGHT), losses.dice),
        *(LossTerm(name, float(weight), LOSS.get(name)) for name, weight in mask_former.EXTRA_LOSSES),
    ]
    matcher = HungarianMatcher(
        mask_former.CLASS_WEIGHT,
        mask_former.MASK_WEIGHT,
        mask_former.DICE_WEIGHT,
        mask_cost=mask_cost,
        sampling=sampling,
    )
    return SetCriterion(
        cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        matcher=matcher,
        class_weight=mask_former.CLASS_WEIGHT,
        class_weights=_class_weights(cfg, labels),
        terms=terms,
        sampling=sampling,
    )


def _sampling(mask_former: CfgNode) -> Sampling:
    if mask_former.TRAIN_NUM_POINTS == 0:
        return AllPixels()
    return PointSampling(
        mask_former.TRAIN_NUM_POINTS, mask_former.OVERSAMPLE_RATIO, mask_former.IMPORTANCE_SAMPLE_RATIO
    )


def _class_weights(cfg: CfgNode, labels: LabelSet | None) -> list[float]:
    """Weight of each class in the classification loss, "no object" last: CLASS_WEIGHTS by name, else 1."""
    given, count = cfg.MODEL.MASK_FORMER.CLASS_WEIGHTS, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    names = labels.names if labels else ()
    key = "MODEL.MASK_FORMER.CLASS_WEIGHTS"
    for name, weight in given.items():
        if name not in names:
            known = (
                f"Known: {', '.join(names[:20])}." if names else "The classes of this recipe's data set are unknown."
            )
            raise UserError(f"{key} names the class {name!r}.{suggest(name, names)} {known}")
        if not isinstance(weight, (int, float)) or weight <= 0:
            raise UserError(f"{key}.{name} is {weight!r}: expected a number above 0.")
    by_class = [float(given.get(name, 1.0)) for name in names] if given else [1.0] * count
    return [*by_class, cfg.MODEL.MASK_FORMER.NO_OBJECT_WEIGHT]


def _check_criterion(mask_former: CfgNode) -> None:
    extra = mask_former.EXTRA_LOSSES
    if any(not isinstance(e, (list, tuple)) or len(e) != 2 for e in extra):
        raise UserError(f"MODEL.MASK_FORMER.EXTRA_LOSSES is {extra}: expected [name, weight] pairs.")
    names = ["ce", "mask", "dice", *(name for name, _ in extra)]
    if len(set(names)) < len(names):
        raise UserError(f"MODEL.MASK_FORMER.EXTRA_LOSSES is {extra}: each name once, other than ce, mask and dice.")
    if mask_former.MASK_LOSS not in MASK_LOSSES:
        raise UserError(
            f"MODEL.MASK_FORMER.MASK_LOSS is {mask_former.MASK_LOSS!r}: expected one of {', '.join(MASK_LOSSES)}."
        )
    if mask_former.TRAIN_NUM_POINTS < 0:
        raise UserError(
            f"MODEL.MASK_FORMER.TRAIN_NUM_POINTS is {mask_former.TRAIN_NUM_POINTS}: expected a number of points, or 0 "
            "for all pixels."
        )
    if mask_former.NO_OBJECT_WEIGHT <= 0:
        raise UserError(f"MODEL.MASK_FORMER.NO_OBJECT_WEIGHT is {mask_former.NO_OBJECT_WEIGHT}: expected more than 0.")
    if mask_former.OVERSAMPLE_RATIO < 1 or not 0 <= mask_former.IMPORTANCE_SAMPLE_RATIO <= 1:
        raise UserError(
            f"MODEL.MASK_FORMER.OVERSAMPLE_RATIO is {mask_former.OVERSAMPLE_RATIO}, expected at least 1; "
            f"IMPORTANCE_SAMPLE_RATIO is {mask_former.IMPORTANCE_SAMPLE_RATIO}, expected 0 to 1."
        )
