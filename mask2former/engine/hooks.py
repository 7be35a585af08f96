"""What happens around the steps: timing, checkpoints, evaluation, writing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from mask2former.checkpoint import preserved_rng
from mask2former.engine.events import EventStorage
from mask2former.utils import comm

if TYPE_CHECKING:
    from mask2former.engine.trainer import Trainer

logger = logging.getLogger(__name__)

WRITE_PERIOD = 20  # updates between two lines of the console and of metrics.json, as in detectron2


class HookBase:
    """Override what is needed. After a step, `trainer.done` already counts it. All ranks have the same hooks."""

    def before_train(self, trainer: Trainer) -> None:
        """Before the first step of this process."""

    def before_step(self, trainer: Trainer) -> None:
        """Before each step."""

    def after_step(self, trainer: Trainer) -> None:
        """After each step."""

    def after_train(self, trainer: Trainer) -> None:
        """After the last step, also when the process was asked to stop; not after an error."""


class TimerHook(HookBase):
    """Measures each step: time and data_time in seconds, throughput in images per second, the learning rate.

    Groups may learn at several rates; "lr" is the highest, BASE_LR's where no factor exceeds 1.
    """

    def before_step(self, trainer: Trainer) -> None:
        self._start = time.perf_counter()
        self._lr = max(group["lr"] for group in trainer.optimizer.param_groups)

    def after_step(self, trainer: Trainer) -> None:
        seconds, iteration = time.perf_counter() - self._start, trainer.done - 1
        trainer.storage.put("time", seconds, iteration)
        trainer.storage.put("data_time", trainer.data_time, iteration)
        trainer.storage.put("images_per_second", trainer.images / seconds, iteration)
        trainer.storage.put("lr", self._lr, iteration, smooth=False)


class CheckpointHook(HookBase):
    """Saves every `period` updates as model_<index of the last update>, at the end as model_final, and when stopped.

    Args:
        save: writes everything under the given name; all ranks call it.
        period: updates; 0: only at the end.
    """

    def __init__(self, save: Callable[[str], None], period: int):
        self.save = save
        self.period = period
        self._saved_at = -1

    def after_step(self, trainer: Trainer) -> None:
        if self.period > 0 and trainer.done % self.period == 0:
            self._save_numbered(trainer)
        if trainer.done == trainer.max_iter:
            self.save("model_final")

    def after_train(self, trainer: Trainer) -> None:
        if trainer.done < trainer.max_iter and self._saved_at != trainer.done and trainer.done > 0:
            self._save_numbered(trainer)

    def _save_numbered(self, trainer: Trainer) -> None:
        self.save(f"model_{trainer.done - 1:07d}")
        self._saved_at = trainer.done


class EvalHook(HookBase):
    """Evaluates every `period` updates and at the end; training goes on as if it had not.

    Args:
        evaluate: returns scalars by name; all ranks call it.
        period: updates; 0: only at the end.
    """

    def __init__(self, evaluate: Callable[[], dict[str, float]], period: int):
        self.evaluate = evaluate
        self.period = period

    def after_step(self, trainer: Trainer) -> None:
        if self.period > 0 and trainer.done % self.period == 0 and trainer.done < trainer.max_iter:
            self._evaluate(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if trainer.done >= trainer.max_iter:
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        with preserved_rng():
            results = self.evaluate()
        comm.synchronize()  # rank 0 has more to do: the others must not time out in the next step's messages
        for name, value in results.items():
            trainer.storage.put(name, value, trainer.done - 1, smooth=False)


class Writer(Protocol):
    """Where scalars go; see `events.py`."""

    def write(self, storage: EventStorage, iteration: int) -> None: ...


class WriterHook(HookBase):
    """Fetches the losses and hands all scalars to the writers, every `period` updates and at the end.

    It comes last, so that what other hooks recorded is written, too. Ranks other than 0 have no writers.
    """

    def __init__(self, writers: Sequence[Writer], period: int = WRITE_PERIOD):
        self.writers = list(writers)
        self.period = period

    def after_step(self, trainer: Trainer) -> None:
        if trainer.done % self.period == 0 or trainer.done == trainer.max_iter:
            self._write(trainer)

    def after_train(self, trainer: Trainer) -> None:
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        trainer.fetch()
        for writer in self.writers:
            writer.write(trainer.storage, trainer.done - 1)
