"""Recipe -> data sets, transforms and loaders: the one place of this room that opens cfg."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torchvision.transforms import v2

from mask2former.data import transforms as T
from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.data.datasets.builtin import register_builtin
from mask2former.data.datasets.checks import check_class_count, check_ignore_label, check_pixels, complete_records
from mask2former.data.datasets.folder import SPLITS, register_custom
from mask2former.data.loader import TestLoader, TrainLoader
from mask2former.data.mapper import ImageTransform, SemanticMapper, TestMapper
from mask2former.data.reading import check_format
from mask2former.data.samplers import InferenceSampler, TrainingBatches, TrainingSampler
from mask2former.structures import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

logger = logging.getLogger(__name__)


def register_datasets(cfg) -> None:
    """Register the published data sets below $DETECTRON2_DATASETS (else ./datasets) and those of DATASETS.CUSTOM.

    An entry that a `_BASE_` brought and no data set of TRAIN or TEST comes from may lack its folder.
    """
    register_builtin(os.environ.get("DETECTRON2_DATASETS", "datasets"))
    used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    for name, entry in cfg.DATASETS.CUSTOM.items():
        if used & {f"{name}_{split}" for split in SPLITS} or Path(str(entry.get("ROOT"))).expanduser().is_dir():
            register_custom(name, entry)


# ---------------------------------------------------------------- records


# name -> (source, labels, masks needed, records): files are read and checked once per registration, not at every
# evaluation
_checked: dict[str, tuple] = {}


def checked_records(cfg, name: str, masks_needed: bool) -> list[dict]:
    """The records of data set `name`, complete, after every check that needs no training.

    Raises:
        UserError: anything that datasets/folder.py and datasets/checks.py find.
    """
    source, head = DatasetCatalog.source(name), cfg.MODEL.SEM_SEG_HEAD
    labels = labels_of(MetadataCatalog.get(name))
    known = _checked.get(name)
    check_class_count(name, labels, head.NUM_CLASSES)
    if not known or known[0] is not source or known[1] != labels or known[2] < masks_needed:
        check_ignore_label(name, labels, head.IGNORE_VALUE)
        records = complete_records(name, source(), masks_needed)
        check_pixels(records, labels)
        known = _checked[name] = (source, labels, masks_needed, records)
    return known[-1]


def check_datasets(cfg, training: bool = True) -> None:
    """Check the data sets of DATASETS.TEST, which are to be evaluated, and with `training` those of DATASETS.TRAIN.

    Raises:
        UserError: one is not as it must be.
    """
    trained = _train_records(cfg)[1] if training else None
    for name in cfg.DATASETS.TEST:
        metadata = MetadataCatalog.get(name)
        checked_records(cfg, name, masks_needed=metadata.get("evaluator_type") == "sem_seg")
        difference = trained.difference(labels_of(metadata)) if trained else ""
        if difference:
            logger.warning("classes of DATASETS.TRAIN and of %r in DATASETS.TEST differ: %s", name, difference)


def _train_records(cfg) -> tuple[list[dict], LabelSet]:
    """All training records and the labels that their data sets share."""
    names = cfg.DATASETS.TRAIN
    if not names:
        raise UserError("DATASETS.TRAIN is empty; name at least one data set, as in DATASETS.TRAIN '[shapes_train]'.")
    known = [record for name in names for record in checked_records(cfg, name, masks_needed=True)]
    first = labels_of(MetadataCatalog.get(names[0]))
    for name in names[1:]:
        labels = labels_of(MetadataCatalog.get(name))
        difference = first.difference(labels)
        if not difference and labels.ignore_label != first.ignore_label:
            difference = f"ignore value {first.ignore_label} against {labels.ignore_label}"
        if difference:
            raise UserError(
                f"The data sets {names[0]!r} and {name!r} of DATASETS.TRAIN have different labels: {difference}. "
                "Train on sets of the same classes and ignore value, or take one of them out."
            )
    return known, first


# ---------------------------------------------------------------- transforms and mappers


def build_train_transform(cfg, ignore_label: int) -> v2.Transform:
    """The published semantic recipe: resize, crop, colour, flip, pad; each step as INPUT says."""
    inp, steps = cfg.INPUT, []
    steps.append(T.ResizeShortestEdge(_sizes(inp.MIN_SIZE_TRAIN), inp.MAX_SIZE_TRAIN, inp.MIN_SIZE_TRAIN_SAMPLING))
    if inp.CROP.ENABLED:
        size = T.CropSize(inp.CROP.TYPE, inp.CROP.SIZE)
        pad = inp.SIZE_DIVISIBILITY
        if 0 < pad < max(inp.CROP.SIZE):
            raise UserError(
                f"INPUT.CROP.SIZE {list(inp.CROP.SIZE)} does not fit INPUT.SIZE_DIVISIBILITY {pad}, the size that "
                f"crops are padded to. Set INPUT.SIZE_DIVISIBILITY to {max(inp.CROP.SIZE)} or more, or to -1."
            )
        steps.append(T.RandomCrop(size, inp.CROP.SINGLE_CATEGORY_MAX_AREA, ignore_label))
    if inp.COLOR_AUG_SSD:
        steps.append(T.SSDColor())
    steps.append(T.random_flip(inp.RANDOM_FLIP))
    if inp.SIZE_DIVISIBILITY > 0:
        steps.append(T.PadTo(inp.SIZE_DIVISIBILITY, ignore_label))
    return v2.Compose(steps)


def build_test_transform(cfg) -> ImageTransform:
    """What evaluation and `Predictor` do to a picture: uint8 RGB [H,W,3] -> uint8 [3,h,w] in INPUT.FORMAT order."""
    check_format(cfg.INPUT.FORMAT)
    resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST)
    return ImageTransform(resize, cfg.INPUT.FORMAT)


def _sizes(value: int | Sequence[int]) -> Sequence[int]:
    return [value] if isinstance(value, int) else value


def _semantic_mapper(cfg, labels: LabelSet) -> SemanticMapper:
    check_format(cfg.INPUT.FORMAT)
    transform = build_train_transform(cfg, labels.ignore_label)
    return SemanticMapper(transform, labels.num_classes, labels.ignore_label, cfg.INPUT.FORMAT)


# INPUT.DATASET_MAPPER_NAME -> function of (cfg, labels) that returns the training mapper; user modules add theirs
MAPPERS: dict[str, Callable] = {"mask_former_semantic": _semantic_mapper}


def build_train_mapper(cfg, labels: LabelSet) -> Callable[[dict], dict]:
    """The mapper that INPUT.DATASET_MAPPER_NAME asks for."""
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in MAPPERS:
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {name!r}, which this version does not have.{suggest(name, MAPPERS)} "
            f"Available: {', '.join(MAPPERS)}."
        )
    return MAPPERS[name](cfg, labels)


# ---------------------------------------------------------------- loaders


def build_train_loader(cfg) -> TrainLoader:
    """Endless batches of this rank, one per forward pass: IMS_PER_BATCH // world size // ACCUMULATE_STEPS samples each.

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
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}, which this version does not have. "
            "Available: TrainingSampler."
        )
    workers = _num_workers(cfg)
    records, labels = _train_records(cfg)
    mapper = build_train_mapper(cfg, labels)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    wide = _wide(cfg, records)
    batches = TrainingBatches(TrainingSampler(len(records), seed), images, passes, rank, world, wide)
    return TrainLoader(records, mapper, batches, workers, _pin_memory(cfg))


def build_test_loader(cfg, name: str) -> TestLoader:
    """This rank's share of data set `name`, in order, one image per batch.

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
    if not cfg.DATALOADER.ASPECT_RATIO_GROUPING or cfg.INPUT.SIZE_DIVISIBILITY > 0:  # padded to one size
        return None
    wide = [record["width"] > record["height"] for record in records]
    return wide if len(set(wide)) > 1 else None


def _num_workers(cfg) -> int:
    if cfg.DATALOADER.NUM_WORKERS < 0:
        raise UserError(f"DATALOADER.NUM_WORKERS is {cfg.DATALOADER.NUM_WORKERS}; expected 0 (none) or more.")
    return cfg.DATALOADER.NUM_WORKERS


def _pin_memory(cfg) -> bool:
    return str(cfg.MODEL.DEVICE).startswith("cuda") and torch.cuda.is_available()
