"""Batches from records: worker processes, exact resume, one clear message for bad data."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mask2former.data.packed import PackedRecords
from mask2former.data.samplers import InferenceSampler, TrainingBatches, mix_seed
from mask2former.utils.errors import UserError


@contextmanager
def seeded(*words: int) -> Iterator[None]:
    """Run a block with torch's CPU, NumPy's and Python's generators seeded from `words`, then put them back."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    seed = mix_seed(*words)
    torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which would reach into the devices' generators
    np.random.seed(seed % 2**32)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class _BadSample:
    """A UserError on its way out of a worker, whose traceback would bury the message."""

    def __init__(self, message: str):
        self.message = message


class _Samples(Dataset):
    """(position, index) -> mapped record; what is random in it depends on seed and position alone."""

    def __init__(self, records: Sequence[dict], mapper: Callable[[dict], dict], seed: int):
        self.records, self.mapper, self.seed = PackedRecords(records), mapper, seed

    def __getitem__(self, place: tuple[int, int]) -> dict | _BadSample:
        position, index = place
        with seeded(self.seed, position, 1):  # three words: unrelated to the order of an epoch, which has two
            try:
                return self.mapper(self.records[index])
            except UserError as error:
                return _BadSample(str(error))


def _as_list(batch: list) -> list:
    """Collate: samples differ in size, so the batch stays a list."""
    return batch


def _checked(batch: list) -> list[dict]:
    for sample in batch:
        if isinstance(sample, _BadSample):
            raise UserError(sample.message)
    return batch


def _start_worker(_: int) -> None:
    gc.freeze()  # the collector leaves the parent's objects alone, whose pages would be copied where it marks them


def _data_loader(samples: Dataset, num_workers: int, pin_memory: bool, seed: int, **sampling: Any) -> DataLoader:
    return DataLoader(
        samples,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_as_list,
        worker_init_fn=_start_worker,
        generator=torch.Generator().manual_seed(seed),  # workers' seeds come from here, not from the global generator
        **sampling,
    )


class TrainLoader:
    """Endless iterator over this rank's batches, each a list of mapped records.

    Workers live as long as the iterator. `state_dict` counts the samples of the batches handed out (not of those
    that workers hold ready), so a run resumes exactly, with any number of workers, ranks or passes per update.

    Args:
        records: what the batches index; packed, so that workers share their memory.
        mapper: record -> sample.
        batches: the plan; its sampler's seed seeds the augmentations, too.
        num_workers: worker processes; 0 loads in this process and leaves its random state as it was.
        pin_memory: copy tensors to page-locked memory, for CUDA.
    """

    def __init__(
        self,
        records: Sequence[dict],
        mapper: Callable[[dict], dict],
        batches: TrainingBatches,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        self.records, self.mapper, self.batches = PackedRecords(records), mapper, batches
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self.consumed = 0  # samples used by all ranks together
        # At most one iterator, kept out of the reach of the cycle collector: that would close the queues which tell
        # the workers to end before the iterator can use them, and each worker would be waited for in vain.
        self._running: list[Iterator[list]] = []
        weakref.finalize(self, self._running.clear).atexit = False

    def __iter__(self) -> TrainLoader:
        return self

    def __next__(self) -> list[dict]:
        if not self._running:
            self._running.append(self._start())
        batch = next(self._running[0])
        self.consumed += self.batches.images_per_pass
        return _checked(batch)

    def _start(self) -> Iterator[list]:
        seed = self.batches.sampler.seed
        samples = _Samples(self.records, self.mapper, seed)
        plan = _Plan(self.batches, self.consumed)
        return iter(_data_loader(samples, self.num_workers, self.pin_memory, seed, batch_sampler=plan))

    def state_dict(self) -> dict[str, int]:
        """Seed and number of samples used, as plain numbers."""
        return {"seed": self.batches.sampler.seed, "consumed": self.consumed}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken; batches that workers hold ready are dropped."""
        self.batches.sampler.seed = int(state["seed"])
        self.consumed = int(state["consumed"])
        self._running.clear()


class _Plan:
    """The batches after a number of samples, in the form that DataLoader takes."""

    def __init__(self, batches: TrainingBatches, consumed: int):
        self.batches, self.consumed = batches, consumed

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches.after(self.consumed)


class TestLoader:
    """This rank's share of a data set in order, in batches of one; as often as it is iterated.

    Args: as `TrainLoader`; `sampler` says which records are this rank's.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(
        self,
        records: Sequence[dict],
        mapper: Callable[[dict], dict],
        sampler: InferenceSampler,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        places = [[(index, index)] for index in sampler]
        workers = min(num_workers, len(places))
        self._loader = _data_loader(_Samples(records, mapper, 0), workers, pin_memory, 0, batch_sampler=places)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self._loader:
            yield _checked(batch)
