"""Learning-rate schedules: what the base rate is multiplied by, as a function of the iteration."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from mask2former.utils.errors import UserError

Factor = Callable[[float], float]  # iteration, counted from 0 -> multiple of the base learning rate


def multi_step(milestones: Sequence[int], gamma: float) -> Factor:
    """`gamma ** n` once n of the milestones are reached."""
    ordered = sorted(milestones)
    return lambda iteration: gamma ** bisect_right(ordered, iteration)


def polynomial(max_iter: int, power: float, floor: float = 0.0) -> Factor:
    """`(1 - iteration / max_iter) ** power`, never below `floor` (DeepLab)."""
    return lambda iteration: max((1.0 - min(iteration, max_iter) / max_iter) ** power, floor)


def cosine(max_iter: int, end: float = 0.0) -> Factor:
    """Half a cosine wave from 1 down to `end` (SGDR without restarts)."""
    return lambda iteration: end + (1.0 - end) * (1.0 + math.cos(math.pi * min(iteration / max_iter, 1.0))) / 2


def warmup(iterations: int, start: float, method: str = "linear") -> Factor:
    """1 from `iterations` on; before, a straight line from `start` to 1 ("linear") or `start` itself ("constant")."""
    if method == "linear":
        return lambda iteration: start + (1.0 - start) * iteration / iterations if iteration < iterations else 1.0
    if method == "constant":
        return lambda iteration: start if iteration < iterations else 1.0
    raise UserError(f"SOLVER.WARMUP_METHOD is {method!r}; expected 'linear' or 'constant'.")


def make_scheduler(optimizer: Optimizer, schedule: Factor, warm: Factor) -> LambdaLR:
    """`lr = base_lr * warm(iteration) * schedule(iteration)` in every group; `step()` once per update."""
    return LambdaLR(optimizer, lambda iteration: warm(iteration) * schedule(iteration))


def restore_scheduler(scheduler: LambdaLR, state: dict) -> None:
    """Take up a saved position; base rates and formula stay those of this run, so that changed keys act."""
    scheduler.load_state_dict({**state, "base_lrs": scheduler.base_lrs})
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates
