"""The jobs: train a recipe, evaluate a model."""

from __future__ import annotations

import json
import logging
import platform
from pathlib import Path

import torch
from torch import nn

import mask2former
from mask2former.checkpoint import Checkpointer, load_backbone_weights, load_checkpoint_file, load_weights
from mask2former.checkpoint.loading import apply_weights, compare, copy_tensors
from mask2former.config import CfgNode
from mask2former.data.build import build_test_loader, build_train_loader
from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.data.datasets.build import check_datasets, checked_records
from mask2former.data.datasets.video_records import is_video
from mask2former.engine.amp import choose_amp_dtype
from mask2former.engine.events import ConsoleWriter, EventStorage, JSONWriter, TensorBoardWriter
from mask2former.engine.hooks import CheckpointHook, EvalHook, HookBase, TimerHook, WriterHook
from mask2former.engine.trainer import Trainer
from mask2former.evaluation import (
    FrameByFrame,
    SemanticTTA,
    build_evaluators,
    inference_on_dataset,
    json_ready,
    print_results,
)
from mask2former.modeling import build_model
from mask2former.modeling.image_model import ImageModel
from mask2former.modeling.video import VideoMaskFormer
from mask2former.solver import build_clipper, build_lr_scheduler, build_optimizer
from mask2former.structures import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError
from mask2former.visualization import ContactSheet

logger = logging.getLogger(__name__)

Results = dict[str, dict[str, dict[str, float]]]  # data set -> task -> metric


def do_train(cfg: CfgNode, resume: bool = False) -> Results:
    """Train, with everything that goes into the output folder, and evaluate at the end.

    Args:
        cfg: from `default_setup`.
        resume: go on from the last checkpoint in the output folder, when there is one.

    Returns:
        The final evaluation of each data set of DATASETS.TEST.

    Raises:
        UserError: a mistake in recipe, data or files, found before training where it can be.
        SystemExit: the run was asked to stop, and has been saved.
    """
    check_datasets(cfg)
    labels = _labels(cfg)
    _check_evaluation(cfg)
    loader = build_train_loader(cfg, compact_masks=True)
    model = build_model(cfg, labels)
    logger.debug("model:\n%s", model)
    _check_synchronized_norms(model, cfg.MODEL.DEVICE)
    optimizer = build_optimizer(cfg, model)
    checkpointer = Checkpointer(cfg.OUTPUT_DIR)
    state = checkpointer.load_last() if resume else None
    if state is None:
        _load_initial_weights(cfg, model, labels)
    trainer = Trainer(
        model,
        loader,
        optimizer,
        build_lr_scheduler(cfg, optimizer),
        max_iter=cfg.SOLVER.MAX_ITER,
        clip=build_clipper(cfg),
        amp_dtype=choose_amp_dtype(cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE, torch.device(cfg.MODEL.DEVICE)),
        accumulate_steps=cfg.SOLVER.ACCUMULATE_STEPS,
    )
    if state is not None:
        _restore(trainer, state, labels, str(checkpointer.last()))
    elif resume:
        logger.warning("--resume: %s holds no checkpoint yet, training starts from the beginning", cfg.OUTPUT_DIR)
    elif checkpointer.last() is not None:
        logger.warning("%s holds an earlier run, which is overwritten; --resume would go on with it", cfg.OUTPUT_DIR)
    results: Results = {}
    trainer.hooks = _hooks(cfg, trainer, checkpointer, labels, results)
    trainer.train()
    if trainer.stopped and trainer.done < trainer.max_iter:
        logger.info("stopped after %d iterations; the same command with --resume goes on from there", trainer.done)
        raise SystemExit(130)  # what shells report for Ctrl-C
    check_expected_results(cfg.TEST.EXPECTED_RESULTS, results)
    return results


def _hooks(
    cfg: CfgNode, trainer: Trainer, checkpointer: Checkpointer, labels: LabelSet, results: Results
) -> list[HookBase]:
    """What happens around the steps; `results` always holds the newest evaluation."""
    constants = _constants(cfg, labels)

    def save(name: str) -> None:
        contents = {**trainer.state_dict(), **constants, "model": trainer.module.state_dict()}  # all ranks: it gathers
        if comm.is_main_process():
            checkpointer.save(name, contents)
        comm.synchronize()

    def evaluate() -> dict[str, float]:
        results.clear()
        _share_buffers(trainer.module)
        results.update(do_test(cfg, trainer.module))
        return flatten_results(results)

    return [
        TimerHook(),
        CheckpointHook(save, cfg.SOLVER.CHECKPOINT_PERIOD),
        *([EvalHook(evaluate, cfg.TEST.EVAL_PERIOD)] if cfg.DATASETS.TEST else []),
        WriterHook(_writers(cfg) if comm.is_main_process() else []),
    ]


def do_evaluate(cfg: CfgNode, resume: bool = False) -> Results:
    """Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint of the output folder, and log to metrics.json.

    Raises:
        UserError: a mistake in recipe, data or files; a result outside TEST.EXPECTED_RESULTS.
    """
    last = Checkpointer(cfg.OUTPUT_DIR).last() if resume else None
    weights = str(last or cfg.MODEL.WEIGHTS)
    if not weights:
        raise UserError("There is nothing to evaluate: add MODEL.WEIGHTS and a checkpoint to the command line.")
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty: name at least one data set to evaluate.")
    check_datasets(cfg, training=False)
    labels = _labels(cfg)
    _check_evaluation(cfg)
    contents = load_checkpoint_file(weights)
    _check_same_classes(cfg, contents, weights)
    model = build_model(cfg, labels)
    logger.info("%s", apply_weights(model, contents["model"], weights))
    results = do_test(cfg, model)
    if comm.is_main_process():
        storage, iteration = EventStorage(), contents.get("iteration", 0)
        for name, value in flatten_results(results).items():
            storage.put(name, value, iteration, smooth=False)
        JSONWriter(Path(cfg.OUTPUT_DIR) / "metrics.json").write(storage, iteration)
    check_expected_results(cfg.TEST.EXPECTED_RESULTS, results)
    return results


def do_test(cfg: CfgNode, model: nn.Module) -> Results:
    """Evaluate a model on each data set of DATASETS.TEST; all ranks call it.

    Figures are logged and written to `results.json`, beside the evaluators' own files and the contact sheet, in
    `inference/` of the output folder; several data sets get a folder each in there. With TEST.AUG.ENABLED a second
    pass with test-time augmentation follows, whose tasks end in "_TTA" and whose files lie in `inference_TTA/`.

    Returns:
        data set -> task -> metric; empty on ranks other than 0, whose evaluators have handed their shares over.
    """
    results: Results = {}
    for name in cfg.DATASETS.TEST:
        found = _test_one(cfg, model, name, _inference_folder(cfg, name))
        if cfg.TEST.AUG.ENABLED:
            logger.info("once more with test-time augmentation: %s", name)
            aug = cfg.TEST.AUG
            augmented = SemanticTTA(model, aug.MIN_SIZES, aug.MAX_SIZE, aug.FLIP)
            again = _test_one(cfg, augmented, name, _inference_folder(cfg, name, "inference_TTA"))
            found.update({f"{task}_TTA": metrics for task, metrics in again.items()})
        if comm.is_main_process():
            results[name] = found
    return results


def _test_one(cfg: CfgNode, model: nn.Module, name: str, folder: Path) -> dict[str, dict[str, float]]:
    """One pass over one data set."""
    sheet = ContactSheet(labels_of(MetadataCatalog.get(name)), folder / "contact_sheet.png", cfg.TEST.NUM_VISUALIZED)
    logger.info("evaluating on %s", name)
    if isinstance(model, ImageModel) and not isinstance(model, VideoMaskFormer) and _is_of_videos(cfg, name):
        logger.info("the model takes images: its objects are linked from frame to frame")
        model = FrameByFrame(model, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.TEST.DETECTIONS_PER_VIDEO)
    found = inference_on_dataset(model, build_test_loader(cfg, name), build_evaluators(cfg, name, folder), sheet)
    picture = sheet.save()
    if comm.is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(json_ready(found), indent=2) + "\n")
        if picture is not None:
            logger.info("predictions beside ground truth: %s", picture)
        print_results(found)
    return found


def _is_of_videos(cfg: CfgNode, name: str) -> bool:
    return is_video(checked_records(cfg, name, masks_needed=False)[0])


def flatten_results(results: Results) -> dict[str, float]:
    """Metrics by path, as detectron2 writes them to metrics.json: "sem_seg/mIoU", with several data sets
    "<data set>/sem_seg/mIoU"."""
    return {
        f"{f'{name}/' if len(results) > 1 else ''}{task}/{metric}": value
        for name, tasks in results.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }


def check_expected_results(expected: list, results: Results) -> None:
    """Compare every data set's results with [task, metric, value, tolerance] entries (TEST.EXPECTED_RESULTS).

    Raises:
        UserError: a result is missing or further off than its tolerance.
    """
    wrong = []
    for task, metric, value, tolerance in expected if comm.is_main_process() else []:
        for name, tasks in results.items():
            found = tasks.get(task, {}).get(metric, float("nan"))
            if not abs(found - value) <= tolerance:  # nan is wrong, too
                wrong.append(f"{task}/{metric} on {name} is {found}, expected {value} +- {tolerance}")
    if wrong:
        raise UserError(f"Results are not those of TEST.EXPECTED_RESULTS: {'; '.join(wrong)}.")


def _labels(cfg: CfgNode) -> LabelSet:
    """The classes the model is built for: those of the first training data set, else of the first test one."""
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        raise UserError("DATASETS.TRAIN and DATASETS.TEST are both empty: name a data set.")
    return labels_of(MetadataCatalog.get(names[0]))


def _check_same_classes(cfg: CfgNode, contents: dict, weights: str) -> None:
    """A checkpoint that says its classes is evaluated on data sets of these classes only."""
    if "labels" not in contents:  # published checkpoints have none
        return
    trained = LabelSet.from_dict(contents["labels"])
    for name in cfg.DATASETS.TEST:
        labels = labels_of(MetadataCatalog.get(name))
        difference = trained.difference(labels, called=("checkpoint", "data set"))
        if not difference and trained.values_difference(labels):
            logger.warning("%s and data set %r differ: %s", weights, name, trained.values_difference(labels))
        if difference:
            raise UserError(
                f"{weights} was trained with other classes than those of {name!r} in DATASETS.TEST: {difference}. "
                "Evaluate it on a data set of its own classes, or correct the class list of the data set."
            )


def _check_evaluation(cfg: CfgNode) -> None:
    """Refuse before hours of training what evaluation would refuse after them; evaluators are made and dropped."""
    test = cfg.MODEL.MASK_FORMER.TEST
    if cfg.TEST.AUG.ENABLED and (test.PANOPTIC_ON or test.INSTANCE_ON or not test.SEMANTIC_ON):
        raise UserError(
            "TEST.AUG.ENABLED is True, but test-time augmentation averages semantic results only. Set it to False, or "
            "MODEL.MASK_FORMER.TEST.SEMANTIC_ON to True and PANOPTIC_ON and INSTANCE_ON to False."
        )
    for entry in cfg.TEST.EXPECTED_RESULTS:
        numbers = entry[2:] if isinstance(entry, list) and len(entry) == 4 else [None]
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise UserError(f"TEST.EXPECTED_RESULTS holds {entry!r}; expected [task, metric, value, tolerance].")
    for name in cfg.DATASETS.TEST:
        build_evaluators(cfg, name, _inference_folder(cfg, name))
        if cfg.MODEL.META_ARCHITECTURE == "VideoMaskFormer" and not _is_of_videos(cfg, name):
            raise UserError(
                f"MODEL.META_ARCHITECTURE is VideoMaskFormer, which takes videos, and the data set {name!r} of "
                "DATASETS.TEST has images. Name one of videos, or set MODEL.META_ARCHITECTURE MaskFormer and "
                "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME MultiScaleMaskedTransformerDecoder."
            )
        # a user's own model may take videos
        if cfg.MODEL.META_ARCHITECTURE == "MaskFormer" and not test.INSTANCE_ON and _is_of_videos(cfg, name):
            raise UserError(
                f"The data set {name!r} of DATASETS.TEST has videos, in which the instances of a model of images are "
                "linked from frame to frame, and the recipe has none. Set MODEL.MASK_FORMER.TEST.INSTANCE_ON to True, "
                "or name a data set of images."
            )


def _check_synchronized_norms(model: nn.Module, device: str) -> None:
    """torch's SyncBatchNorm refuses to train on the CPU under a process group, in the first step and without a key."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.SyncBatchNorm)]
    if names and device == "cpu" and torch.distributed.is_initialized():
        key = "MODEL.RESNETS.NORM" if names[0].startswith("backbone.") else "MODEL.SEM_SEG_HEAD.NORM"
        raise UserError(
            f"{key} is SyncBN ({len(names)} layers, the first is {names[0]}), which trains across processes on GPUs "
            f"only, and these run on the CPU. Set {key} to another norm, or train in one process: --num-gpus 0."
        )


def _inference_folder(cfg: CfgNode, name: str, kind: str = "inference") -> Path:
    folder = Path(cfg.OUTPUT_DIR) / kind
    return folder / name if len(cfg.DATASETS.TEST) > 1 else folder


def _load_initial_weights(cfg: CfgNode, model: nn.Module, labels: LabelSet) -> None:
    """MODEL.WEIGHTS, else for a timm backbone MODEL.TIMM.WEIGHTS; random values stay where neither is given."""
    timm = cfg.MODEL.TIMM.WEIGHTS if cfg.MODEL.BACKBONE.NAME.startswith("timm/") else ""
    if cfg.MODEL.WEIGHTS:
        logger.info("%s", load_weights(model, cfg.MODEL.WEIGHTS, labels=labels))
        if timm:
            logger.info("MODEL.TIMM.WEIGHTS is left aside: MODEL.WEIGHTS is given")
    elif timm:
        logger.info("backbone: %s", load_backbone_weights(model.backbone, timm))
    else:
        logger.warning("training from random weights: neither MODEL.WEIGHTS nor a backbone's file is given")


def _restore(trainer: Trainer, state: dict, labels: LabelSet, source: str) -> None:
    trained = LabelSet.from_dict(state["labels"]) if "labels" in state else labels
    difference = trained.difference(labels, called=("checkpoint", "data set"))
    if difference:
        raise UserError(
            f"{source} cannot be resumed: its classes are not those of DATASETS.TRAIN: {difference}. Start a new run "
            "from it with MODEL.WEIGHTS and another OUTPUT_DIR."
        )
    report = compare(trainer.module, state["model"], source)
    if "optimizer" not in state or report.missing or report.unexpected or report.reshaped:
        raise UserError(
            f"{source} cannot be resumed with this recipe; use the one it was made with, or start a new run from it "
            f"with MODEL.WEIGHTS and another OUTPUT_DIR.\n{report}"
        )
    copy_tensors(trainer.module, state["model"], report.matched)
    trainer.load_state_dict(state)
    logger.info("resumed from %s", source)


def _share_buffers(model: nn.Module) -> None:
    """Give all ranks rank 0's running averages, which are saved: else each rank evaluates another model."""
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, 0)


def _constants(cfg: CfgNode, labels: LabelSet) -> dict:
    """What a checkpoint says about itself beside the state of training; tensors and plain values only."""
    return {
        "labels": labels.to_dict(),
        "normalization": {
            "mean": list(cfg.MODEL.PIXEL_MEAN),
            "std": list(cfg.MODEL.PIXEL_STD),
            "format": cfg.INPUT.FORMAT,
        },
        "config": cfg.dump(),
        "versions": {
            "mask2former": mask2former.__version__,
            "torch": str(torch.__version__),  # its own type is a subclass of str
            "python": platform.python_version(),
        },
    }


def _writers(cfg: CfgNode) -> list:
    folder, last = Path(cfg.OUTPUT_DIR), cfg.SOLVER.MAX_ITER
    return [
        ConsoleWriter(last, torch.device(cfg.MODEL.DEVICE)),
        JSONWriter(folder / "metrics.json", last),
        TensorBoardWriter(folder),
    ]
