import gc
import multiprocessing
import random
import time

import numpy as np
import pytest
import torch

from mask2former.data.loader import TestLoader, TrainLoader, seeded
from mask2former.data.samplers import InferenceSampler, TrainingBatches, TrainingSampler
from mask2former.utils.errors import UserError

RECORDS = [{"name": i} for i in range(10)]


def _noisy(record):
    """A sample that shows all three random generators."""
    return {"name": record["name"], "noise": (float(torch.rand(())), float(np.random.rand()), random.random())}


def _picky(record):
    if record["name"] == 3:
        raise UserError("mask 3.png is wrong")
    return record


def _loader(workers=0, mapper=_noisy, passes=1, rank=0, world=1, seed=7):
    batches = TrainingBatches(TrainingSampler(len(RECORDS), seed), 4, passes, rank, world)
    return TrainLoader(RECORDS, mapper, batches, workers)


def _take(loader, count):
    return [next(loader) for _ in range(count)]


def _samples(batches):
    return [(sample["name"], sample["noise"]) for batch in batches for sample in batch]


def test_workers_and_the_main_process_load_the_same_samples():
    assert _take(_loader(0), 8) == _take(_loader(2), 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_is_exact_whatever_the_workers(workers):
    whole = _take(_loader(0), 9)
    first = _loader(workers)
    assert _take(first, 4) == whole[:4]
    state = first.state_dict()
    assert state == {"seed": 7, "consumed": 16}
    for other in (0, 2):
        second = _loader(other, seed=99)
        second.load_state_dict(state)
        assert _take(second, 5) == whole[4:]
    first.load_state_dict({"seed": 7, "consumed": 0})
    assert _take(first, 3) == whole[:3]


@pytest.mark.parametrize("passes", [1, 2])
def test_ranks_share_the_stream_and_its_augmentations(passes):
    whole = _samples(_take(_loader(), 6))
    ranks = [_samples(_take(_loader(passes=passes, rank=rank, world=2), 6 * passes)) for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == sorted(whole)


def test_samples_of_one_record_differ_between_epochs():
    samples = _samples(_take(_loader(), 10))
    assert len({noise for _, noise in samples}) == len(samples)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_random_state_of_the_process_alone(workers):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    wanted = float(torch.rand(())), float(np.random.rand()), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    _take(_loader(workers), 3)
    list(TestLoader(RECORDS, _noisy, InferenceSampler(10), workers))
    assert (float(torch.rand(())), float(np.random.rand()), random.random()) == wanted


def test_workers_end_at_once_when_the_loader_is_part_of_a_cycle():
    class Trainer:
        pass

    trainer = Trainer()
    trainer.loader, trainer.itself = _loader(2), trainer
    next(trainer.loader)
    workers = multiprocessing.active_children()
    start = time.perf_counter()
    del trainer
    gc.collect()
    assert time.perf_counter() - start < 4  # a worker that hears nothing is given up after 5 seconds
    assert not any(worker.is_alive() for worker in workers)


def test_seeded_gives_the_state_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(1, 2):
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_users_mistake_in_a_worker_is_one_clear_message(workers):
    with pytest.raises(UserError) as caught:
        _take(_loader(workers, _picky), 3)
    assert str(caught.value) == "mask 3.png is wrong"
    with pytest.raises(UserError) as caught:
        list(TestLoader(RECORDS, _picky, InferenceSampler(10), workers))
    assert str(caught.value) == "mask 3.png is wrong"


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader_gives_each_record_once_in_order_as_often_as_asked(workers):
    loader = TestLoader(RECORDS, _noisy, InferenceSampler(10, rank=1, world=3), workers)
    for _ in range(2):
        assert [sample["name"] for (sample,) in loader] == [4, 5, 6]
    assert len(loader) == 3


def test_an_empty_shard_is_an_empty_loader():
    loader = TestLoader(RECORDS[:1], _noisy, InferenceSampler(1, rank=1, world=2), 2)
    assert len(loader) == 0 and list(loader) == []
