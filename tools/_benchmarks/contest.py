"""Two ways to do the same work, timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


@dataclass(frozen=True)
class Contest:
    """One line of the table.

    name      what is timed
    work      images (or other pieces) in one call
    unit      their name, in the plural
    ours      call of ours; rival: the other one, and `rival_name` says in words what it is
    same      raises ValueError when the two calls' results are not the same; a fast wrong answer wins nothing
    """

    name: str
    work: int
    unit: str
    ours: Callable[[], Any]
    rival: Callable[[], Any]
    rival_name: str
    same: Callable[[Any, Any], None]


@dataclass(frozen=True)
class Timing:
    """Seconds of each call of a contest, in the order of the repeats."""

    contest: Contest
    ours: list[float]
    rival: list[float]

    @property
    def ratio(self) -> float:
        """How many times as fast ours is: median of the rival over median of ours."""
        return statistics.median(self.rival) / statistics.median(self.ours)

    @property
    def rates(self) -> tuple[float, float]:
        """Pieces of work per second, ours and the rival's, by the medians."""
        return tuple(self.contest.work / statistics.median(seconds) for seconds in (self.ours, self.rival))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        ours, rival = self.rates
        return {
            "name": self.contest.name,
            "rival": self.contest.rival_name,
            "unit": f"{self.contest.unit}/s",
            "ours": ours,
            "theirs": rival,
            "ratio": self.ratio,
            "seconds_ours": self.ours,
            "seconds_rival": self.rival,
        }


def hold(contest: Contest, repeats: int) -> Timing:
    """Call both once to warm up and to compare what they give, then in turns, `repeats` times each.

    Turns share what else goes on: a machine that slows down slows both.
    """
    contest.same(contest.ours(), contest.rival())
    ours, rival = [], []
    for _ in tqdm(range(repeats), desc=contest.name, leave=False):
        ours.append(_seconds(contest.ours))
        rival.append(_seconds(contest.rival))
    return Timing(contest, ours, rival)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def check_close(what: str, ours: float, rival: float, tolerance: float) -> None:
    """Raise ValueError when two figures differ by more than `tolerance`."""
    if not abs(ours - rival) <= tolerance:
        raise ValueError(f"{what} is {ours}, the rival's {rival}: they do not do the same work")
