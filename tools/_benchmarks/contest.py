"""Two ways to do the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from _benchmarks.floor import count_flops

Call = Callable[[], Any]
MILLISECONDS = "ms"


@dataclass(frozen=True)
class Contest:
    """One line of the table.

    name        what is timed
    work        images (or other pieces) in one call
    unit        their name, in the plural, for pieces per second; or MILLISECONDS, for the time of a call
    ours        call of ours; rival: the other one, and `rival_name` says in words what it is
    same        raises ValueError when the two calls' results are not the same; a fast wrong answer wins nothing
    sides       functions, which can be pickled, that prepare ours and rival anew: where peak memory is measured, too
    calls       of each side while its memory is measured
    arithmetic  whether matrix products and convolutions are most of the work, so that counting them gives a floor
    """

    name: str
    work: int
    unit: str
    ours: Call
    rival: Call
    rival_name: str
    same: Callable[[Any, Any], None]
    sides: tuple[Callable[[], Call], Callable[[], Call]] | None = None
    calls: int = 1
    arithmetic: bool = False


@dataclass
class Timing:
    """A contest's outcome.

    ours, rival  seconds of each call, in the order of the repeats
    flops        floating point operations of one call of ours, where they were counted
    memory       bytes of each side: the peak beyond what stood before the call and what it returns
    """

    name: str
    work: int
    unit: str
    rival_name: str
    ours: list[float]
    rival: list[float]
    flops: int | None = None
    memory: tuple[int, int] | None = None

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: median of the rival over median of ours."""
        return statistics.median(self.rival) / statistics.median(self.ours)

    @property
    def figures(self) -> tuple[float, float]:
        """Ours and the rival's, by the medians: pieces of work per second, or milliseconds of a call."""
        medians = [statistics.median(seconds) for seconds in (self.ours, self.rival)]
        if self.unit == MILLISECONDS:
            return tuple(1000 * seconds for seconds in medians)
        return tuple(self.work / seconds for seconds in medians)

    @property
    def figures_unit(self) -> str:
        """Of `figures`."""
        return self.unit if self.unit == MILLISECONDS else f"{self.unit}/s"

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        content = asdict(self)
        seconds = {f"seconds_{side}": content.pop(side) for side in ("ours", "rival")}
        ours, rival = self.figures
        return {**content, "unit": self.figures_unit, "ours": ours, "theirs": rival, "ratio": self.ratio, **seconds}


def hold(contest: Contest, repeats: int) -> Timing:
    """Call both once to warm up and to compare what they give, then in turns, `repeats` times each.

    Turns share what else goes on: a machine that slows down slows both.
    """
    contest.same(contest.ours(), contest.rival())
    flops = count_flops(contest.ours) if contest.arithmetic else None  # counted, some ops of ours take the plain way
    ours, rival = [], []
    for _ in tqdm(range(repeats), desc=contest.name, leave=False):
        ours.append(_seconds(contest.ours))
        rival.append(_seconds(contest.rival))
    return Timing(contest.name, contest.work, contest.unit, contest.rival_name, ours, rival, flops)


def _seconds(call: Call) -> float:
    _wait()
    start = time.perf_counter()
    call()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Until the GPU, where one is in use, has done what it was told."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def check_close(what: str, ours: float, rival: float, tolerance: float) -> None:
    """Raise ValueError when two figures differ by more than `tolerance`."""
    if not abs(ours - rival) <= tolerance:
        raise ValueError(f"{what} is {ours}, the rival's {rival}: they do not do the same work")


def check_tensors(what: str, ours: Tensor, rival: Tensor, tolerance: float, share: float = 0.0) -> None:
    """Raise ValueError when shapes differ, or more than `share` of the numbers by more than `tolerance`.

    The tolerance is a part of the rival's largest number.
    """
    if ours.shape != rival.shape:
        raise ValueError(f"{what} has shape {tuple(ours.shape)}, the rival's {tuple(rival.shape)}")
    limit = tolerance * float(rival.abs().max())
    differing = float(((ours - rival).abs() <= limit).logical_not().float().mean())  # NaN differs
    if differing > share:
        raise ValueError(f"{what}: {differing:.2%} of the numbers differ from the rival's by more than {limit:.2g}")
