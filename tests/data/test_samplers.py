from itertools import islice

import pytest

from mask2former.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingBatches,
    TrainingSampler,
    repeat_factors,
)


def _plan(images=12, passes=1, rank=0, world=1, wide=None, size=17, seed=4):
    return TrainingBatches(TrainingSampler(size, seed), images, passes, rank, world, wide)


def test_every_epoch_holds_every_index_in_an_order_of_its_own():
    pairs = list(islice(TrainingSampler(11, seed=3), 33))
    assert [position for position, _ in pairs] == list(range(33))
    epochs = [[index for _, index in pairs[start : start + 11]] for start in (0, 11, 22)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert pairs != list(islice(TrainingSampler(11, seed=4), 33))


@pytest.mark.parametrize("start", [0, 1, 10, 11, 25])
def test_the_stream_may_start_anywhere(start):
    sampler = TrainingSampler(11, seed=3)
    assert list(islice(sampler.stream(start), 15)) == list(islice(sampler, start, start + 15))


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("passes", "world"), [(1, 1), (1, 2), (3, 1), (2, 3), (1, 12)])
def test_ranks_and_passes_partition_each_update(grouped, passes, world):
    wide = [i % 3 == 0 for i in range(17)] if grouped else None
    whole = list(islice(_plan(wide=wide).after(0), 9))
    ranks = [list(islice(_plan(12, passes, rank, world, wide).after(0), 9 * passes)) for rank in range(world)]
    for update, wanted in enumerate(whole):
        parts = [pair for rank in ranks for batch in rank[update * passes : (update + 1) * passes] for pair in batch]
        assert sorted(parts) == sorted(wanted)
    if not grouped:
        assert [pair for batch in whole for pair in batch] == list(islice(TrainingSampler(17, 4), 9 * 12))
    if grouped:
        assert all(len({wide[index] for _, index in batch}) == 1 for batch in whole)


@pytest.mark.parametrize("grouped", [False, True])
def test_resume_goes_on_where_the_plan_stopped_on_any_layout(grouped):
    wide = [i % 3 == 0 for i in range(17)] if grouped else None
    whole = list(islice(_plan(12, 2, wide=wide).after(0), 12))
    for done in range(6):
        assert list(islice(_plan(12, 2, wide=wide).after(done * 6), 12 - done)) == whole[done:]
    # four samples per pass where six were before: whole passes only
    assert next(_plan(12, 3, wide=wide).after(6)) == (whole[0] + whole[1])[4:8]


def test_indivisible_layouts_are_refused():
    with pytest.raises(ValueError, match="not divisible"):
        _plan(images=10, world=4)


@pytest.mark.parametrize(("size", "world"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_inference_shards_are_contiguous_and_complete(size, world):
    shards = [list(InferenceSampler(size, rank, world)) for rank in range(world)]
    assert [index for shard in shards for index in shard] == list(range(size))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert [len(InferenceSampler(size, rank, world)) for rank in range(world)] == [len(shard) for shard in shards]


# ---------------------------------------------------------------- repeat factors


def test_repeat_factors_are_the_papers():
    """LVIS: r = max over the image's classes of max(1, sqrt(t / f))."""
    classes = [{0, 1}] * 6 + [{0}] * 3 + [{2, 0}] + [set()] * 6  # f = 10/16, 6/16, 1/16
    factors = repeat_factors(classes, 0.5)
    common, rare = 1.0, (0.5 / (1 / 16)) ** 0.5
    middle = (0.5 / (6 / 16)) ** 0.5
    assert factors == pytest.approx([middle] * 6 + [common] * 3 + [rare] + [1.0] * 6)
    assert repeat_factors(classes, 0.5, sqrt=False)[9] == pytest.approx(8.0)
    assert repeat_factors(classes, 0.0) == [1.0] * 16
    assert repeat_factors([[4, 4], [5]], 1.0) == pytest.approx([2**0.5] * 2)  # a class counts once per image


def test_records_come_as_often_as_their_factors_say():
    factors = [1.0, 1.25, 2.5, 3.0]
    sampler = RepeatFactorTrainingSampler(factors, seed=1)
    epochs = [sampler._order(epoch).tolist() for epoch in range(2000)]
    counts = [[epoch.count(i) for epoch in epochs] for i in range(4)]
    assert [set(c) for c in counts] == [{1}, {1, 2}, {2, 3}, {3}]
    assert [sum(c) / 2000 for c in counts] == pytest.approx(factors, abs=0.05)
    assert len({tuple(epoch[:3]) for epoch in epochs}) > 20


@pytest.mark.parametrize("start", [0, 1, 7, 8, 31, 100])
def test_the_repeating_stream_may_start_anywhere(start):
    sampler = RepeatFactorTrainingSampler([1.0, 1.5, 1.2, 2.7, 1.0], seed=3)
    whole = list(islice(sampler, 140))
    assert [position for position, _ in whole] == list(range(140))
    assert list(islice(sampler.stream(start), 40)) == whole[start : start + 40]
    assert whole != list(islice(RepeatFactorTrainingSampler(sampler.factors, seed=4), 140))


def test_factors_of_one_repeat_nothing():
    stream = islice(RepeatFactorTrainingSampler([1.0] * 9, seed=3), 27)
    assert sorted(index for _, index in stream) == sorted([*range(9)] * 3)
