"""Which record comes when: endless shuffled streams for training, shards for evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import islice

import numpy as np
import torch

# A position numbers the samples of the training stream from 0, over all ranks; an index is a place in the records.


def mix_seed(*words: int) -> int:
    """A 63-bit seed from whole numbers >= 0; different words give unrelated streams."""
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))


class TrainingSampler:
    """Endless (position, index) pairs: every index once per epoch, each epoch in an order of its own.

    Args:
        size: number of records.
        seed: at least 0. Position k has the same index in every process and run with this seed.
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed = size, seed

    def stream(self, start: int = 0) -> Iterator[tuple[int, int]]:
        """The pairs from position `start` on."""
        epoch, skipped = self._place(start)
        position = start
        while True:
            for index in self._order(epoch)[skipped:].tolist():
                yield position, index
                position += 1
            epoch, skipped = epoch + 1, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return self.stream()

    def _generator(self, epoch: int) -> torch.Generator:
        return torch.Generator().manual_seed(mix_seed(self.seed, epoch))

    def _place(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and its place in there."""
        return divmod(position, self.size)

    def _order(self, epoch: int) -> torch.Tensor:
        """The indices of an epoch, int64 [n]."""
        return torch.randperm(self.size, generator=self._generator(epoch))


class RepeatFactorTrainingSampler(TrainingSampler):
    """Endless pairs in which record i comes factors[i] times per epoch on average (LVIS, Gupta et al. 2019, sec. 5).

    Each epoch rounds every factor up or down at random, so that its mean is kept.

    Args:
        factors: one number, at least 1, for each record; see `repeat_factors`.
        seed: as for `TrainingSampler`.
    """

    def __init__(self, factors: Sequence[float], seed: int):
        super().__init__(len(factors), seed)
        self.factors = torch.as_tensor(factors, dtype=torch.float64)

    def _repeats(self, generator: torch.Generator) -> torch.Tensor:
        return (self.factors + torch.rand(self.size, generator=generator, dtype=torch.float64)).long()

    def _place(self, position: int) -> tuple[int, int]:
        epoch = 0
        while position >= (length := int(self._repeats(self._generator(epoch)).sum())):
            epoch, position = epoch + 1, position - length
        return epoch, position

    def _order(self, epoch: int) -> torch.Tensor:
        generator = self._generator(epoch)
        indices = torch.arange(self.size).repeat_interleave(self._repeats(generator))
        return indices[torch.randperm(len(indices), generator=generator)]


def repeat_factors(classes: Sequence[Collection[int]], threshold: float, sqrt: bool = True) -> list[float]:
    """How often each image is to be seen per epoch (LVIS, Gupta et al. 2019, sec. 5).

    A class in the share f of the images has the factor max(1, sqrt(threshold / f)); an image has the largest factor of
    its classes, 1 if it has none.

    Args:
        classes: for each image, the class numbers in it.
        threshold: share of the images below which a class is repeated, DATALOADER.REPEAT_THRESHOLD.
        sqrt: False leaves the root out, DATALOADER.REPEAT_SQRT.
    """
    images = Counter(class_id for present in classes for class_id in set(present))
    power = 0.5 if sqrt else 1.0
    factor = {class_id: max(1.0, (threshold * len(classes) / n) ** power) for class_id, n in images.items()}
    return [max((factor[class_id] for class_id in present), default=1.0) for present in classes]


class TrainingBatches:
    """Cuts the stream into one rank's batches, so that an optimiser update sees the same samples on any layout.

    The stream is grouped by whole updates (all ranks, all forward passes); a pass takes a run of its group, and
    rank r every `world`-th sample of it from r on. With `wide`, each group holds samples of one kind.

    Args:
        sampler: the stream.
        images: samples per optimiser update, over all ranks.
        passes: forward passes per update.
        rank, world: this process and the number of processes; `images` is divisible by passes * world.
        wide: for each record, whether its image is wider than high; None: samples are not grouped by shape.
    """

    def __init__(
        self,
        sampler: TrainingSampler,
        images: int,
        passes: int = 1,
        rank: int = 0,
        world: int = 1,
        wide: Sequence[bool] | None = None,
    ):
        if images <= 0 or images % (passes * world):
            raise ValueError(f"{images} images are not divisible by {passes} passes x {world} ranks")
        self.sampler, self.images, self.images_per_pass = sampler, images, images // passes
        self.rank, self.world, self.wide = rank, world, wide

    def after(self, consumed: int) -> Iterator[list[tuple[int, int]]]:
        """This rank's batches once `consumed` samples (over all ranks, whole passes) have been used."""
        update, done = divmod(consumed, self.images)
        done -= done % self.images_per_pass
        for group in self._groups(update):
            for start in range(done, self.images, self.images_per_pass):
                yield group[start : start + self.images_per_pass][self.rank :: self.world]
            done = 0

    def _groups(self, skipped: int) -> Iterator[list[tuple[int, int]]]:
        if self.wide is not None:
            yield from islice(self._groups_by_shape(), skipped, None)  # replayed: about a second per million samples
        stream = self.sampler.stream(skipped * self.images)
        while True:
            yield list(islice(stream, self.images))

    def _groups_by_shape(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        for position, index in self.sampler:
            group = waiting[self.wide[index]]
            group.append((position, index))
            if len(group) == self.images:
                yield group[:]
                group.clear()


class InferenceSampler:
    """This rank's contiguous run of the indices 0 .. size - 1; every index belongs to exactly one rank.

    Runs differ in length by one at most; with fewer records than ranks some are empty.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1):
        short, longer = divmod(size, world)
        start = rank * short + min(rank, longer)
        self.indices = range(start, start + short + (rank < longer))

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)
