"""The file of run lengths: what goes in comes out, track by track, while it grows and after."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest

from mask2former.structures import RleSpool, SpooledRles, TrackMasks, rle_decode, rle_encode
from mask2former.utils.errors import UserError

# T frames, N tracks

SIZE = (12, 17)


def filled(length=30, count=3, seed=0):
    """A spool of noise masks, places of each track's newest record, and the RLEs by track and frame."""
    random = np.random.default_rng(seed)
    spool, newest, truth = RleSpool(), [None] * count, [{} for _ in range(count)]
    for t in range(length):
        for n in np.flatnonzero(random.random(count) < 0.6).tolist():
            truth[n][t] = rle_encode(random.random(SIZE) < 0.5)
            newest[n] = spool.append(truth[n][t], t, newest[n])
    return spool, newest, truth


def test_tracks_come_back_frame_by_frame():
    spool, newest, truth = filled()
    for place, expected in zip(newest, truth):
        rles = SpooledRles(spool, place, SIZE)
        assert dict(rles) == expected
        assert list(rles) == sorted(expected)
        masks = TrackMasks(rles, 30, SIZE)
        assert masks.rles() == [expected.get(t) for t in range(30)]
        assert [masks.rle(t) for t in range(30)] == masks.rles()
        assert np.array_equal(masks[-3], rle_decode(expected[27]) if 27 in expected else np.zeros(SIZE, bool))


def test_a_track_without_masks():
    rles = SpooledRles(RleSpool(), None, SIZE)
    assert len(rles) == 0
    assert TrackMasks(rles, 2, SIZE).rles() == [None, None]


def test_what_was_read_stays_while_the_track_goes_on():
    spool, (first, second, _), truth = filled()
    early = SpooledRles(spool, first, SIZE)
    assert dict(early) == truth[0]
    more = rle_encode(np.eye(*SIZE, dtype=bool))
    late = SpooledRles(spool, spool.append(more, 40, first), SIZE)
    assert dict(late) == {**truth[0], 40: more}
    assert dict(early) == truth[0]
    assert dict(SpooledRles(spool, second, SIZE)) == truth[1]


def test_copies_hold_the_run_lengths_themselves():
    spool, newest, truth = filled()
    masks = TrackMasks(SpooledRles(spool, newest[0], SIZE), 30, SIZE)
    for copied in (pickle.loads(pickle.dumps(masks)), copy.deepcopy(masks)):
        assert copied.rles() == masks.rles()
        assert copied._rles == truth[0]


def test_the_file_is_gone_with_the_last_track():
    spool, newest, truth = filled()
    rles, descriptor = SpooledRles(spool, newest[0], SIZE), spool._file.fileno()
    del spool
    gc.collect()
    assert dict(rles) == truth[0]
    del rles
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="needs reads at a place")
def test_reading_leaves_the_position_that_forked_processes_share():
    spool, newest, truth = filled()
    spool._file.seek(7)
    assert dict(SpooledRles(spool, newest[0], SIZE)) == truth[0]
    assert spool._file.tell() == 7


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_told_and_what_was_kept_can_be_read():
    spool, newest, truth = filled()
    with open("/dev/full", "r+b", buffering=0) as full:
        spool._file, kept = full, spool._file
        with pytest.raises(UserError, match=r"cannot be kept .*No space left on device.*TMPDIR"):
            spool.append(next(iter(truth[0].values())), 30, newest[0])
    spool._file = kept
    assert dict(SpooledRles(spool, newest[0], SIZE)) == truth[0]
