"""Scalars measured while training, and where they are written: console, metrics.json, TensorBoard."""

from __future__ import annotations

import datetime
import json
import logging
import math
import re
import sys
from pathlib import Path

import torch
from fvcore.common.history_buffer import HistoryBuffer

logger = logging.getLogger(__name__)

WINDOW = 20  # updates that a reported median spans, as in detectron2
HISTORY = 1000  # updates remembered, and averaged over for the remaining time

_AUXILIARY_LOSS = re.compile(r"_\d+$")  # loss_ce_0: the same term on an earlier decoder layer


class EventStorage:
    """Named scalars by iteration (index of the update, from 0), each with its history."""

    def __init__(self) -> None:
        self._histories: dict[str, HistoryBuffer] = {}
        self._iterations: dict[str, int] = {}
        self._smoothed: dict[str, bool] = {}

    def put(self, name: str, value: float, iteration: int, smooth: bool = True) -> None:
        """Record a value; `smooth` says whether reports give the median of the last ones or this one itself."""
        self._histories.setdefault(name, HistoryBuffer(HISTORY)).update(float(value), iteration)
        self._iterations[name] = iteration
        self._smoothed[name] = smooth

    def history(self, name: str) -> HistoryBuffer:
        """The last values of a scalar, `HISTORY` of them at most."""
        return self._histories[name]

    def __contains__(self, name: str) -> bool:
        return name in self._histories

    def reported(self, window: int = WINDOW) -> dict[str, tuple[float, int]]:
        """Every scalar's value for reports, and the iteration it was last recorded at."""
        return {
            name: (history.median(window) if self._smoothed[name] else history.latest(), self._iterations[name])
            for name, history in self._histories.items()
        }


class ConsoleWriter:
    """One log line: remaining time, iteration, losses, times, throughput, learning rate, memory.

    Losses of earlier decoder layers (`loss_ce_0` ...) are in total_loss and in the files, not in the line.
    """

    def __init__(self, max_iter: int, device: torch.device):
        self.max_iter = max_iter
        self.device = device
        self._written = -1

    def write(self, storage: EventStorage, iteration: int) -> None:
        if iteration == self._written:
            return
        self._written = iteration
        values = {name: value for name, (value, _) in storage.reported().items()}
        losses = [n for n in ("total_loss", *sorted(values)) if n.startswith("loss") or n == "total_loss"]
        fields = [f"eta: {_duration(eta_seconds(storage, iteration, self.max_iter))}", f"iter: {iteration}"]
        fields += [
            f"{n}: {values[n]:.4g}" for n in dict.fromkeys(losses) if n in values and not _AUXILIARY_LOSS.search(n)
        ]
        if "time" in values:
            fields += [f"time: {values['time']:.4f}", f"last_time: {storage.history('time').latest():.4f}"]
        fields += [f"{n}: {values[n]:.4f}" for n in ("data_time",) if n in values]
        fields += [f"{n}: {values[n]:.1f}" for n in ("images_per_second",) if n in values]
        fields += [f"{n}: {values[n]:.5g}" for n in ("lr",) if n in values]
        logger.info("%s  max_mem: %.0fM", "  ".join(fields), peak_memory(self.device) / 2**20)


class JSONWriter:
    """`metrics.json`: a JSON object per line, as detectron2 writes it; {"iteration": 19, "lr": 0.0001, ...}.

    Scalars recorded at another iteration than the others, or later (an evaluation's), get a line of their own. Values
    that are not finite are null.
    """

    def __init__(self, path: str | Path, max_iter: int | None = None):
        self.path = Path(path)
        self.max_iter = max_iter
        self._written: dict[str, int] = {}

    def write(self, storage: EventStorage, iteration: int) -> None:
        lines: dict[int, dict[str, float]] = {}
        for name, (value, recorded) in fresh_scalars(storage, self._written).items():
            lines.setdefault(recorded, {"iteration": recorded})[name] = value
        if self.max_iter is not None and "time" in lines.get(iteration, ()):
            lines[iteration]["eta_seconds"] = eta_seconds(storage, iteration, self.max_iter)
        with open(self.path, "a") as file:
            for recorded in sorted(lines):
                file.write(json.dumps(_finite(lines[recorded]), sort_keys=True, allow_nan=False) + "\n")


class TensorBoardWriter:
    """The same scalars as curves: `tensorboard --logdir OUTPUT_DIR`."""

    def __init__(self, folder: str | Path):
        from torch.utils.tensorboard import SummaryWriter  # a second to import: not for those who never train

        self._writer = SummaryWriter(str(folder))
        self._written: dict[str, int] = {}

    def write(self, storage: EventStorage, iteration: int) -> None:
        for name, (value, recorded) in fresh_scalars(storage, self._written).items():
            self._writer.add_scalar(name, value, recorded)
        self._writer.flush()


def fresh_scalars(storage: EventStorage, written: dict[str, int]) -> dict[str, tuple[float, int]]:
    """What was recorded since the call before; `written` (name -> iteration) remembers that."""
    fresh = {name: pair for name, pair in storage.reported().items() if written.get(name) != pair[1]}
    written.update({name: recorded for name, (_, recorded) in fresh.items()})
    return fresh


def eta_seconds(storage: EventStorage, iteration: int, max_iter: int) -> float:
    """Seconds that the updates after `iteration` will take at the median pace so far."""
    if "time" not in storage:
        return 0.0
    return storage.history("time").median(HISTORY) * (max_iter - iteration - 1)


def peak_memory(device: torch.device) -> int:
    """Bytes: most memory ever held by tensors on a CUDA device, or by this process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    """Strict JSON has no nan."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))
