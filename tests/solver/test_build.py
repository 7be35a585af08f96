import math

import pytest
import torch
from torch import nn

from mask2former.config import get_cfg
from mask2former.solver import GradientClipper, build_clipper, build_lr_scheduler, build_optimizer
from mask2former.utils.errors import UserError


def make_cfg(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


def with_gradients(*values):
    parameters = []
    for value in values:
        parameter = nn.Parameter(torch.zeros(len(value)))
        parameter.grad = torch.tensor(value)
        parameters.append(parameter)
    return parameters


def test_adamw_with_the_recipe_s_keys():
    cfg = make_cfg("SOLVER.BASE_LR", "0.01", "SOLVER.WEIGHT_DECAY", "0.05")
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.01, 0.05)]


def test_sgd_with_momentum():
    cfg = make_cfg("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", "0.8", "SOLVER.NESTEROV", "True")
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.8 and optimizer.param_groups[0]["nesterov"]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("SOLVER.OPTIMIZER", "ADAMX"), "SOLVER.OPTIMIZER is 'ADAMX'.*Did you mean 'ADAMW'"),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupPoly"), "SOLVER.LR_SCHEDULER_NAME.*Did you mean 'WarmupPolyLR'"),
        (("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norms"), "Did you mean 'norm'"),
        (("SOLVER.CLIP_GRADIENTS.ENABLED", "True", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "0"), "expected more than 0"),
        (("SOLVER.MAX_ITER", "0"), "SOLVER.MAX_ITER is 0; expected more than 0"),
        (("SOLVER.BASE_LR", "0", "SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"), "SOLVER.BASE_LR is 0.0"),
    ],
)
def test_values_that_cannot_work_are_refused(opts, message):
    cfg = make_cfg(*opts)
    with pytest.raises(UserError, match=message):
        build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(2, 2)))
        build_clipper(cfg)


def test_frozen_model_is_refused():
    with pytest.raises(UserError, match="nothing to train"):
        build_optimizer(make_cfg(), nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize(
    ("name", "at_half"),
    [("WarmupMultiStepLR", 0.1), ("WarmupPolyLR", 0.5**0.9), ("WarmupCosineLR", 0.505)],
)
def test_schedules_read_their_keys(name, at_half):
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.MAX_ITER", "8", "SOLVER.STEPS", "(4,)")
    cfg.merge_from_list(["SOLVER.BASE_LR", "0.1", "SOLVER.BASE_LR_END", "0.001", "SOLVER.WARMUP_ITERS", "2"])
    optimizer = build_optimizer(cfg, nn.Linear(2, 2))
    scheduler = build_lr_scheduler(cfg, optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * cfg.SOLVER.WARMUP_FACTOR)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * at_half)


def test_full_model_clipping_keeps_directions():
    a, b = with_gradients([3.0, 0.0], [0.0, 4.0])
    GradientClipper("full_model", 0.5)([a, b])
    assert torch.allclose(torch.cat([a.grad, b.grad]), torch.tensor([0.3, 0.0, 0.0, 0.4]))


def test_norm_clipping_takes_each_parameter_alone():
    a, b = with_gradients([3.0, 4.0], [0.1, 0.0])
    GradientClipper("norm", 1.0)([a, b])
    assert torch.allclose(a.grad, torch.tensor([0.6, 0.8])) and torch.allclose(b.grad, torch.tensor([0.1, 0.0]))


def test_norm_type_is_used():
    (a,) = with_gradients([3.0, -4.0])
    GradientClipper("full_model", 2.0, math.inf)([a])
    assert torch.allclose(a.grad, torch.tensor([1.5, -2.0]))


def test_value_clipping():
    (a,) = with_gradients([3.0, -0.5])
    GradientClipper("value", 1.0)([a])
    assert a.grad.tolist() == [1.0, -0.5]


def test_clipping_is_off_by_default():
    assert build_clipper(make_cfg()) is None
