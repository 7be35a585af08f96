"""Recipe -> transforms, mappers and loaders; datasets/build.py makes its records."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torchvision.transforms import v2

from mask2former.data import transforms as T
from mask2former.data.clips import ClipMapper, ClipSampling
from mask2former.data.datasets.build import checked_records, forget_training_records, train_records
from mask2former.data.datasets.video_records import noun_of
from mask2former.data.loader import TestLoader, TrainLoader
from mask2former.data.mapper import Annotation, ImageTransform, TestMapper, TrainMapper
from mask2former.data.reading import check_format
from mask2former.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingBatches,
    TrainingSampler,
    repeat_factors,
)
from mask2former.data.selection import check_fit, check_videos, image_classes, without_empty
from mask2former.data.targets import InstanceAnnotation, PanopticAnnotation, SemanticAnnotation
from mask2former.structures import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------- transforms and mappers


def build_train_transform(cfg, ignore_label: int | None = None) -> v2.Transform:
    """Resize, crop, colour, flip, pad, each step as INPUT says: the recipes of ADE20K, Cityscapes and Mapillary.

    Args:
        cfg: the recipe.
        ignore_label: id of pixels without class, which masks are padded with; None: masks are of objects, padded with
            0, and no class limits the crop.
    """
    inp, steps = cfg.INPUT, []
    steps.append(T.ResizeShortestEdge(_sizes(inp.MIN_SIZE_TRAIN), inp.MAX_SIZE_TRAIN, inp.MIN_SIZE_TRAIN_SAMPLING))
    if inp.CROP.ENABLED:
        steps.append(_build_crop(cfg, ignore_label))
    if inp.COLOR_AUG_SSD:
        steps.append(T.SSDColor())
    steps.append(T.random_flip(inp.RANDOM_FLIP))
    if inp.SIZE_DIVISIBILITY > 0:
        steps.append(T.PadTo(inp.SIZE_DIVISIBILITY, ignore_label or 0))
    return v2.Compose(steps)


def _build_crop(cfg, ignore_label: int | None) -> T.RandomCrop:
    crop, pad = cfg.INPUT.CROP, cfg.INPUT.SIZE_DIVISIBILITY
    size = T.CropSize(crop.TYPE, crop.SIZE)
    if 0 < pad < max(crop.SIZE):
        raise UserError(
            f"INPUT.CROP.SIZE {list(crop.SIZE)} does not fit INPUT.SIZE_DIVISIBILITY {pad}, the size that "
            f"crops are padded to. Set INPUT.SIZE_DIVISIBILITY to {max(crop.SIZE)} or more, or to -1."
        )
    if ignore_label is None and crop.SINGLE_CATEGORY_MAX_AREA < 1:
        raise UserError(
            f"INPUT.CROP.SINGLE_CATEGORY_MAX_AREA {crop.SINGLE_CATEGORY_MAX_AREA} limits crops by the classes of "
            f"semantic masks, which INPUT.DATASET_MAPPER_NAME {cfg.INPUT.DATASET_MAPPER_NAME!r} does not read. Set it "
            "to 1.0."
        )
    return T.RandomCrop(size, crop.SINGLE_CATEGORY_MAX_AREA, ignore_label or 0)


def build_lsj_transform(cfg) -> v2.Transform:
    """Flip and large-scale jitter: the recipes of COCO."""
    inp = cfg.INPUT
    jitter = T.LargeScaleJitter(inp.IMAGE_SIZE, inp.MIN_SCALE, inp.MAX_SCALE)
    return v2.Compose([T.random_flip(inp.RANDOM_FLIP), jitter, T.PadTo(inp.IMAGE_SIZE, mask_fill=0)])


def build_detr_transform(cfg) -> v2.Transform:
    """Flip, for half of the images resize and crop, and resize: MaskFormer's recipes of COCO (DETR, sec. A.4)."""
    inp = cfg.INPUT
    steps = [T.random_flip(inp.RANDOM_FLIP)]
    if inp.CROP.ENABLED:
        before = T.ResizeShortestEdge([400, 500, 600], sys.maxsize)  # published sizes, without limit
        crop = T.RandomCrop(T.CropSize(inp.CROP.TYPE, inp.CROP.SIZE))
        steps.append(v2.RandomApply([v2.Compose([before, crop])], p=0.5))
    steps.append(T.ResizeShortestEdge(_sizes(inp.MIN_SIZE_TRAIN), inp.MAX_SIZE_TRAIN, inp.MIN_SIZE_TRAIN_SAMPLING))
    return v2.Compose(steps)


def build_clip_transform(cfg) -> v2.Transform:
    """Crop, resize, flip, then INPUT.AUGMENTATIONS: the recipes of YouTube-VIS. All frames of a clip change alike."""
    inp = cfg.INPUT
    if unknown := [word for word in inp.AUGMENTATIONS if word not in T.CLIP_AUGMENTATIONS]:
        raise UserError(
            f"INPUT.AUGMENTATIONS has {unknown[0]!r}; expected words of {', '.join(T.CLIP_AUGMENTATIONS)}."
            f"{suggest(str(unknown[0]), T.CLIP_AUGMENTATIONS)}"
        )
    steps = [_build_crop(cfg, None)] if inp.CROP.ENABLED else []
    steps.append(T.ResizeShortestEdge(_sizes(inp.MIN_SIZE_TRAIN), inp.MAX_SIZE_TRAIN, inp.MIN_SIZE_TRAIN_SAMPLING))
    steps.append(T.random_flip(inp.RANDOM_FLIP))
    steps += [make() for word, make in T.CLIP_AUGMENTATIONS.items() if word in inp.AUGMENTATIONS]
    return v2.Compose(steps)


def build_test_transform(cfg) -> ImageTransform:
    """What evaluation and `Predictor` do to a picture: uint8 RGB [H,W,3] -> uint8 [3,h,w] in INPUT.FORMAT order."""
    check_format(cfg.INPUT.FORMAT)
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST)
    return ImageTransform(resize, cfg.INPUT.FORMAT)


def _sizes(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def _semantic_mapper(cfg, labels: LabelSet) -> TrainMapper:
    annotation = SemanticAnnotation(labels.num_classes, labels.ignore_label)
    check_format(cfg.INPUT.FORMAT)
    return TrainMapper(annotation, build_train_transform(cfg, labels.ignore_label), cfg.INPUT.FORMAT)


def _object_mapper(annotation: type[Annotation], transform: Callable, cfg, labels: LabelSet) -> TrainMapper:
    check_format(cfg.INPUT.FORMAT)
    return TrainMapper(annotation(), transform(cfg), cfg.INPUT.FORMAT)


def _clip_mapper(cfg, labels: LabelSet) -> ClipMapper:
    inp = cfg.INPUT
    check_format(inp.FORMAT)
    sampling = ClipSampling(inp.SAMPLING_FRAME_NUM, inp.SAMPLING_FRAME_RANGE, inp.SAMPLING_FRAME_SHUFFLE)
    return ClipMapper(sampling, build_clip_transform(cfg), inp.FORMAT)


# INPUT.DATASET_MAPPER_NAME -> function of (cfg, labels) that returns the training mapper; user modules add theirs
MAPPERS: dict[str, Callable] = {
    "mask_former_semantic": _semantic_mapper,
    "mask_former_panoptic": partial(_object_mapper, PanopticAnnotation, build_train_transform),
    "mask_former_instance": partial(_object_mapper, InstanceAnnotation, build_train_transform),
    "coco_panoptic_lsj": partial(_object_mapper, PanopticAnnotation, build_lsj_transform),
    "coco_instance_lsj": partial(_object_mapper, InstanceAnnotation, build_lsj_transform),
    "detr_panoptic": partial(_object_mapper, PanopticAnnotation, build_detr_transform),
    "ytvis": _clip_mapper,  # clips of videos; of COCO's images, too
}
# the key that each needs in its records
_SOURCES = {
    "mask_former_semantic": SemanticAnnotation.source,
    "mask_former_panoptic": PanopticAnnotation.source,
    "mask_former_instance": InstanceAnnotation.source,
    "coco_panoptic_lsj": PanopticAnnotation.source,
    "coco_instance_lsj": InstanceAnnotation.source,
    "detr_panoptic": PanopticAnnotation.source,
    "ytvis": InstanceAnnotation.source,
}
_ONE_SIZE = ("coco_panoptic_lsj", "coco_instance_lsj")  # mappers whose samples all have the same size


def mapper_name(cfg) -> str:
    """The name in INPUT.DATASET_MAPPER_NAME; models of clips have a default of their own, as published."""
    name = cfg.INPUT.DATASET_MAPPER_NAME
    of_clips = cfg.MODEL.META_ARCHITECTURE == "VideoMaskFormer"  # its published recipes name no mapper
    return "ytvis" if of_clips and name == "mask_former_semantic" else name


def build_train_mapper(cfg, labels: LabelSet) -> Callable[[dict], dict]:
    """The mapper that INPUT.DATASET_MAPPER_NAME asks for."""
    name = mapper_name(cfg)
    if name not in MAPPERS:
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {name!r}, which this version does not have.{suggest(name, MAPPERS)} "
            f"Available: {', '.join(MAPPERS)}."
        )
    return MAPPERS[name](cfg, labels)


# ---------------------------------------------------------------- loaders


def build_train_loader(cfg, compact_masks: bool = False) -> TrainLoader:
    """Endless batches of this rank, one per forward pass: IMS_PER_BATCH // world size // ACCUMULATE_STEPS samples each.

    Args:
        cfg: the recipe.
        compact_masks: give `gt_masks` as CompactMasks, many times smaller than boolean tensors [N,h,w] on the way from
            the workers to the device. The models here take both.

    Raises:
        UserError: a data set or a setting is not as it must be; found before the first batch.
    """
    images, passes = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE_STEPS
    rank, world = comm.get_rank(), comm.get_world_size()
    if images <= 0 or passes <= 0 or images % (world * passes):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {images} cannot be shared by {world} processes with {passes} forward passes each "
            f"(SOLVER.ACCUMULATE_STEPS); set SOLVER.IMS_PER_BATCH to a multiple of {world * max(passes, 1)}."
        )
    workers = _num_workers(cfg)
    records, labels = train_records(cfg)
    mapper = build_train_mapper(cfg, labels)
    if compact_masks and isinstance(mapper, (TrainMapper, ClipMapper)):
        mapper.compact = True
    check_videos(mapper_name(cfg), _SOURCES.keys() - {"ytvis"}, records)
    check_fit(mapper_name(cfg), _SOURCES, records)
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and _source(cfg, records) == InstanceAnnotation.source:
        records = without_empty(records)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    sampler = _build_sampler(cfg, records, labels, seed)
    batches = TrainingBatches(sampler, images, passes, rank, world, _wide(cfg, records))
    loader = TrainLoader(records, mapper, batches, workers, _pin_memory(cfg))
    forget_training_records(cfg)  # the loader has packed them
    return loader


def _source(cfg, records: Sequence[dict]) -> str:
    """The key of the records that training reads; for a user's mapper, of unknown needs, the first they have."""
    known = _SOURCES.get(mapper_name(cfg))
    return known or next((key for key in _SOURCES.values() if key in records[0]), SemanticAnnotation.source)


def _build_sampler(cfg, records: Sequence[dict], labels: LabelSet, seed: int) -> TrainingSampler:
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == "TrainingSampler":
        return TrainingSampler(len(records), seed)
    if loader.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {loader.SAMPLER_TRAIN!r}, which this version does not have. "
            "Available: TrainingSampler, RepeatFactorTrainingSampler."
        )
    classes = image_classes(records, _source(cfg, records), labels.ignore_label)
    factors = repeat_factors(classes, loader.REPEAT_THRESHOLD, loader.REPEAT_SQRT)
    logger.info(
        "%d of %d training %s are repeated, up to %.1f times (DATALOADER.REPEAT_THRESHOLD %g)",
        sum(factor > 1 for factor in factors),
        len(factors),
        noun_of(records),
        max(factors),
        loader.REPEAT_THRESHOLD,
    )
    return RepeatFactorTrainingSampler(factors, seed)


def build_test_loader(cfg, name: str) -> TestLoader:
    """This rank's share of data set `name`, in order, one image or video per batch; frames are read as they are used.

    Raises:
        UserError: the data set or a setting is not as it must be.
    """
    workers = _num_workers(cfg)
    mapper = TestMapper(build_test_transform(cfg))
    records = checked_records(cfg, name, masks_needed=False)
    sampler = InferenceSampler(len(records), comm.get_rank(), comm.get_world_size())
    return TestLoader(records, mapper, sampler, workers, _pin_memory(cfg))


def _wide(cfg, records: Sequence[dict]) -> list[bool] | None:
    """Shapes to group batches by; None where grouping is off or would change nothing."""
    one_size = cfg.INPUT.SIZE_DIVISIBILITY > 0 or cfg.INPUT.DATASET_MAPPER_NAME in _ONE_SIZE
    if not cfg.DATALOADER.ASPECT_RATIO_GROUPING or one_size:
        return None
    wide = [record["width"] > record["height"] for record in records]
    return wide if len(set(wide)) > 1 else None


def _num_workers(cfg) -> int:
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise UserError(f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; expected 0 (none) or more.")
    return cfg.DATALOADER.NUM_WORKERS


def _pin_memory(cfg) -> bool:
    return str(cfg.MODEL.DEVICE).startswith("cuda") and torch.cuda.is_available()
