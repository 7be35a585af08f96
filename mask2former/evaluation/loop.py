"""One pass of a model over a data set."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from mask2former.data.datasets.video_records import is_video
from mask2former.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators, try_to_keep
from mask2former.utils import comm
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# the first batches pay for caches and kernel selection: left out of the mean times when others follow
WARMUP_BATCHES = 5


class Visualizer(Protocol):
    """Looks at each image of the pass, as `visualization.ContactSheet` does."""

    def add(self, sample: dict, output: dict) -> None: ...


def inference_on_dataset(
    model: nn.Module,
    loader: Iterable[Sequence[dict]],
    evaluators: DatasetEvaluator | Sequence[DatasetEvaluator],
    visualizer: Visualizer | None = None,
) -> dict[str, dict[str, float]]:
    """Run `model` over `loader` in evaluation mode, without gradients, and return the merged metrics by task.

    Every rank calls it with its share of the data, which may be empty. Afterwards each module is back in the mode,
    training or evaluation, that it was in. An error, such as that of a frame that cannot be read, ends the pass of its
    rank and is raised on all ranks when they are through; what was predicted until then is written, see
    :meth:`DatasetEvaluator.keep`.

    Args:
        model: list[dict] -> list[dict]; one wrapped in DistributedDataParallel is unwrapped.
        loader: batches, each a list of inputs; with len(), the progress bar knows the end.
        evaluators: fed with every batch in turn.
        visualizer: given every input with its output.
    """
    evaluator = evaluators if isinstance(evaluators, DatasetEvaluator) else DatasetEvaluators(evaluators)
    if isinstance(model, DistributedDataParallel):
        model = model.module  # the wrapper may broadcast buffers in forward, and shares differ in length
    evaluator.reset()
    clock, failure = _Clock(), None
    try:
        with evaluating(model), torch.inference_mode():
            for inputs in clock.timed(_with_progress(loader)):
                outputs = model(inputs)
                clock.lap("model")
                evaluator.process(inputs, outputs)
                if visualizer is not None:
                    for sample, output in zip(inputs, outputs, strict=True):
                        visualizer.add(sample, output)
                clock.lap("metrics")
        evaluator.finish()
    except Exception as error:  # whatever it is, what was done before is good
        failure = error
        logger.error("the evaluation ends early: %s", error)
    _raise_after_keeping(failure, evaluator)
    logger.info(clock.summary())
    return evaluator.evaluate()


def _raise_after_keeping(failure: Exception | None, evaluator: DatasetEvaluator) -> None:
    """Raise what ended the pass on any rank, when the others have come to the end of their shares, too."""
    messages = comm.all_gather(None if failure is None else str(failure))
    failures = [message for message in messages if message is not None]
    if not failures:
        return
    for path in try_to_keep(evaluator):
        logger.warning("the predictions that were made before are in %s", path)
    raise failure or UserError(failures[0])


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode inside the block; after it every module has its own former mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield model
    finally:
        for module in training:  # one by one: parts that were frozen in evaluation mode stay so
            module.training = True


def _with_progress(loader: Iterable) -> tqdm:
    return tqdm(
        loader,
        desc="evaluating",
        unit="batch",
        disable=not comm.is_main_process(),
        # a log file gets a line now and then, a terminal a live bar
        mininterval=0.1 if sys.stderr.isatty() else 15.0,
        maxinterval=10.0 if sys.stderr.isatty() else 60.0,
        dynamic_ncols=True,
    )


class _Clock:
    """Seconds that each batch spent waiting for data, in the model, and on metrics and pictures."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._batches: list[dict[str, float]] = []
        self._noun = "image"

    def timed(self, batches: Iterable) -> Iterator:
        for batch in batches:
            self._batches.append({})
            self.lap("data")
            self._batches[-1]["inputs"] = len(batch)
            self._noun = "video" if is_video(batch[0]) else "image"
            yield batch

    def lap(self, part: str) -> None:
        """Book the time since the last call under `part`, once a GPU has finished what it was given."""
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self._batches[-1][part] = now - self._last
        self._last = now

    def summary(self) -> str:
        if not self._batches:
            return "No image in this process's share of the data set."
        steady = self._batches[WARMUP_BATCHES:] or self._batches
        inputs = sum(batch["inputs"] for batch in steady)
        means = [f"{part} {sum(b[part] for b in steady) / inputs:.4f} s" for part in ("data", "model", "metrics")]
        total = sum(batch["inputs"] for batch in self._batches)
        where = " on this rank" if comm.get_world_size() > 1 else ""
        took = f"{self._last - self._start:.1f} s"
        return f"Ran {total} {self._noun}s{where} in {took}. Per {self._noun}: {', '.join(means)}."
