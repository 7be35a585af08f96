"""cfg.SOLVER -> optimiser, schedule, clipper."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mask2former.solver.clipping import GradientClipper
from mask2former.solver.param_groups import make_param_groups
from mask2former.solver.schedules import cosine, make_scheduler, multi_step, polynomial, warmup
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


def _adamw(solver, groups: list[dict]) -> Optimizer:
    return AdamW(groups, lr=solver.BASE_LR, fused=_fused_supported(groups))


def _sgd(solver, groups: list[dict]) -> Optimizer:
    return SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)


def _fused_supported(groups: list[dict]) -> bool:
    """Whether torch's single-kernel update covers every parameter: floating point on CUDA or on the CPU."""
    parameters = [p for group in groups for _, p in group["params"]]
    return all(p.device.type in ("cuda", "cpu") and torch.is_floating_point(p) for p in parameters)


OPTIMIZERS = {"ADAMW": _adamw, "SGD": _sgd}

SCHEDULES = {
    "WarmupMultiStepLR": lambda s: multi_step(s.STEPS, s.GAMMA),
    "WarmupPolyLR": lambda s: polynomial(s.MAX_ITER, s.POLY_LR_POWER, s.POLY_LR_CONSTANT_ENDING),
    "WarmupCosineLR": lambda s: cosine(s.MAX_ITER, s.BASE_LR_END / s.BASE_LR),
}


def _choose(key: str, name: str, table: dict):
    if name not in table:
        raise UserError(f"{key} is {name!r}; expected one of {', '.join(table)}.{suggest(name, table)}")
    return table[name]


def build_optimizer(cfg, model: nn.Module) -> Optimizer:
    """The optimiser of SOLVER.OPTIMIZER over the trainable parameters of `model`."""
    solver = cfg.SOLVER
    make = _choose("SOLVER.OPTIMIZER", solver.OPTIMIZER, OPTIMIZERS)
    groups = make_param_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        backbone_multiplier=solver.BACKBONE_MULTIPLIER,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_embed=solver.WEIGHT_DECAY_EMBED,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    if not groups:
        raise UserError("Every parameter of the model is frozen: nothing to train. Lower MODEL.BACKBONE.FREEZE_AT.")
    return make(solver, groups)


def build_lr_scheduler(cfg, optimizer: Optimizer) -> LambdaLR:
    """The schedule of SOLVER.LR_SCHEDULER_NAME with its warm-up; one `step()` per update of the weights."""
    solver = cfg.SOLVER
    for key in ("MAX_ITER", "BASE_LR"):
        if not solver[key] > 0:
            raise UserError(f"SOLVER.{key} is {solver[key]}; expected more than 0.")
    schedule = _choose("SOLVER.LR_SCHEDULER_NAME", solver.LR_SCHEDULER_NAME, SCHEDULES)(solver)
    return make_scheduler(optimizer, schedule, warmup(solver.WARMUP_ITERS, solver.WARMUP_FACTOR, solver.WARMUP_METHOD))


def build_clipper(cfg) -> GradientClipper | None:
    """The gradient clipper of SOLVER.CLIP_GRADIENTS; None when it is not enabled."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    return GradientClipper(clip.CLIP_TYPE, clip.CLIP_VALUE, clip.NORM_TYPE) if clip.ENABLED else None
