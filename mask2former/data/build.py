"""Recipe -> transforms, mappers and loaders; datasets/build.py makes its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.transforms import v2

from mask2former.data import transforms as T
from mask2former.data.datasets.build import checked_records, train_records
from mask2former.data.loader import TestLoader, TrainLoader
from mask2former.data.mapper import ImageTransform, SemanticMapper, TestMapper
from mask2former.data.reading import check_format
from mask2former.data.samplers import InferenceSampler, TrainingBatches, TrainingSampler
from mask2former.structures import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

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
    records, labels = train_records(cfg)
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
