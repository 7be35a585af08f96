"""From the command line to a run that can start: config, user modules, data sets, output folder, logs, seeds."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from pathlib import Path

import torch

from mask2former.compat import load_user_modules
from mask2former.config import CfgNode, load_cfg
from mask2former.data.datasets.build import infer_num_classes, register_datasets
from mask2former.utils import comm
from mask2former.utils.env import collect_env
from mask2former.utils.errors import UserError
from mask2former.utils.logger import setup_logger
from mask2former.utils.memory import keep_freed_memory
from mask2former.utils.seed import seed_everything

logger = logging.getLogger(__name__)

NUM_GPUS_HELP = (
    "processes per machine, each on a GPU of its own, or sharing the CPU where there is no GPU (default 1); "
    "0: one process on the CPU"
)
FLOAT32_PRECISIONS = ("", "highest", "high", "medium")  # torch.set_float32_matmul_precision; "": leave as it is


def argument_parser() -> argparse.ArgumentParser:
    """The flags of `train_net.py`, as detectron2's."""
    parser = argparse.ArgumentParser(
        description="Train or evaluate a model.",
        epilog="Examples: train_net.py --config-file configs/quickstart/semantic.yaml --num-gpus 0 SOLVER.MAX_ITER 9; "
        "train_net.py --config-file RECIPE --eval-only MODEL.WEIGHTS output/model_final.pth",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="recipe (YAML)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS and stop")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help=NUM_GPUS_HELP)
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines in the run")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="I", help="index of this machine")
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys to change, after all flags")
    return parser


def default_setup(args: argparse.Namespace) -> CfgNode:
    """Everything that comes before models and data; returns the frozen config.

    Reads the recipe, starts the logs, imports user modules, registers data sets, seeds random generators, and writes
    `config.yaml` into the output folder.

    Raises:
        UserError: the recipe, a flag or a user module is not as it must be.
    """
    misplaced = [word for word in args.opts if word.startswith("--")]
    if misplaced:
        raise UserError(f"{misplaced[0]} comes after KEY VALUE pairs; put all flags before them.")
    cfg = load_cfg(args.config_file, args.opts)
    rank = comm.get_rank()
    _start_logs(cfg, rank)
    logger.info("command: %s", shlex.join(sys.argv))
    logger.debug("environment:\n%s", collect_env())
    _choose_device(cfg, args.num_gpus)
    load_user_modules(cfg.IMPORTS, relative_to=Path(args.config_file).parent)
    register_datasets(cfg)
    infer_num_classes(cfg)
    rescale_for_ranks(cfg, comm.get_world_size())
    _seed(cfg, rank)
    _set_backends(cfg, training=not args.eval_only)
    cfg.freeze()
    logger.debug("config:\n%s", cfg.dump())
    if comm.is_main_process():
        _write_config(cfg, keep=args.eval_only)
    return cfg


def _start_logs(cfg: CfgNode, rank: int) -> None:
    try:
        setup_logger(cfg.OUTPUT_DIR, rank)
    except OSError as error:
        raise UserError(
            f"OUTPUT_DIR is {cfg.OUTPUT_DIR!r}, where nothing can be written ({error}). Set it to another folder."
        ) from error


def _choose_device(cfg: CfgNode, num_gpus: int) -> None:
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == "nccl":
            raise UserError(
                f"MODEL.DEVICE is {cfg.MODEL.DEVICE} in the recipe, but the processes were started on GPUs. Pass "
                f"MODEL.DEVICE {cfg.MODEL.DEVICE} on the command line, or --num-gpus 0."
            )
    elif num_gpus == 0 or not torch.cuda.is_available():
        reason = "--num-gpus 0" if num_gpus == 0 else "no CUDA device found"
        world = comm.get_world_size()
        where = f"in {world} processes on the CPU" if world > 1 else "on the CPU"
        asked = logging.INFO if num_gpus == 0 else logging.WARNING
        logger.log(asked, "%s: running %s (MODEL.DEVICE cpu)", reason, where)
        cfg.MODEL.DEVICE = "cpu"
    try:
        torch.empty(0, device=cfg.MODEL.DEVICE)
    except (RuntimeError, AssertionError) as error:  # unknown name; not on this machine or in this build of torch
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, which does not work here ({str(error).splitlines()[0]}). Set it to "
            "cuda or cpu."
        ) from error


def rescale_for_ranks(cfg: CfgNode, world_size: int) -> None:
    """Fit a recipe written for SOLVER.REFERENCE_WORLD_SIZE ranks to `world_size` ranks, in place.

    With r = world_size / reference, batch and learning rate grow by r and every count of iterations shrinks by it
    (linear scaling rule, Goyal et al. 2017): images per rank and epochs stay the same.
    """
    solver = cfg.SOLVER
    if solver.REFERENCE_WORLD_SIZE in (0, world_size):
        return
    ratio = world_size / solver.REFERENCE_WORLD_SIZE
    batch = solver.IMS_PER_BATCH * ratio
    if batch != int(batch):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH} for {solver.REFERENCE_WORLD_SIZE} ranks "
            f"(SOLVER.REFERENCE_WORLD_SIZE) is {batch} for {world_size}: no whole number. Change one of them."
        )
    solver.IMS_PER_BATCH = int(batch)
    solver.BASE_LR *= ratio
    solver.BASE_LR_END *= ratio
    solver.MAX_ITER = round(solver.MAX_ITER / ratio)
    solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / ratio)
    solver.STEPS = [round(step / ratio) for step in solver.STEPS]
    solver.CHECKPOINT_PERIOD = round(solver.CHECKPOINT_PERIOD / ratio)
    cfg.TEST.EVAL_PERIOD = round(cfg.TEST.EVAL_PERIOD / ratio)
    solver.REFERENCE_WORLD_SIZE = world_size
    logger.info(
        "recipe rescaled to %d ranks: batch %d, learning rate %g, %d iterations, warm-up %d",
        world_size,
        solver.IMS_PER_BATCH,
        solver.BASE_LR,
        solver.MAX_ITER,
        solver.WARMUP_ITERS,
    )


def _seed(cfg: CfgNode, rank: int) -> None:
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
        logger.info("SEED %d drawn; set it to repeat this run", cfg.SEED)
    seed_everything(cfg.SEED + rank)  # ranks draw different points and dropout


def _set_backends(cfg: CfgNode, training: bool) -> None:
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK and training  # test images come in many sizes
    if cfg.FLOAT32_PRECISION not in FLOAT32_PRECISIONS:
        known = ", ".join(repr(name) for name in FLOAT32_PRECISIONS)
        raise UserError(f"FLOAT32_PRECISION is {cfg.FLOAT32_PRECISION!r}; expected one of {known}.")
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()


def _write_config(cfg: CfgNode, keep: bool) -> None:
    """Save the config; with `keep`, one that is there (of the training that is evaluated) stays."""
    path = Path(cfg.OUTPUT_DIR) / "config.yaml"
    if not (keep and path.exists()):
        path.write_text(cfg.dump())
        logger.info("config saved in %s", path)
