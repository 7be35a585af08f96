"""What every evaluator does, and several of them taken as one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)


class DatasetEvaluator:
    """Collects the predictions of one data set and turns them into metrics.

    A subclass is fed image by image, on every rank with that rank's share, and must cope with an empty share.
    """

    def reset(self) -> None:
        """Forget everything; called before the first image."""
        raise NotImplementedError

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Take in the model's `outputs` for a batch of `inputs`, both in the order of the batch."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called after the last image: wait for work that still goes on. An error here ends the pass as any other."""

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics by task, as ``{"sem_seg": {"mIoU": 71.2, ...}}``. Every rank calls it: the shares meet here."""
        raise NotImplementedError

    def keep(self) -> list[Path]:
        """Called instead of `evaluate` when the pass ended early: write the predictions that are in memory.

        Every rank calls it: the shares meet here, too, so nothing that may fail comes before. Figures of a part are
        not those of the data set, so there are none.

        Returns:
            on the main rank the files; none where an evaluator holds no predictions, or has no folder for them.
        """
        return []


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators over one pass through the data; their tasks are merged into one result."""

    def __init__(self, evaluators: Sequence[DatasetEvaluator]):
        self.evaluators = list(evaluators)

    def reset(self) -> None:
        for evaluator in self.evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        for evaluator in self.evaluators:
            evaluator.process(inputs, outputs)

    def finish(self) -> None:
        for evaluator in self._ours():
            evaluator.finish()

    def evaluate(self) -> dict[str, dict[str, float]]:
        merged: dict[str, dict[str, float]] = {}
        for evaluator in self.evaluators:
            results = evaluator.evaluate()
            if twice := merged.keys() & results.keys():
                raise ValueError(f"Two evaluators of one data set both report {sorted(twice)}.")
            merged.update(results)
        return merged

    def keep(self) -> list[Path]:
        return [path for evaluator in self._ours() for path in try_to_keep(evaluator)]

    def _ours(self) -> list[DatasetEvaluator]:
        """Those with all methods: users' may come from detectron2."""
        return [evaluator for evaluator in self.evaluators if isinstance(evaluator, DatasetEvaluator)]


def try_to_keep(evaluator: DatasetEvaluator) -> list[Path]:
    """`evaluator.keep()`; an error in it, such as of a full disk, is logged: another one has ended the pass."""
    try:
        return evaluator.keep()
    except Exception as error:
        logger.error("%s: what was predicted before cannot be kept: %s", type(evaluator).__name__, error)
        return []
