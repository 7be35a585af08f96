"""Work in threads: order, bounds, errors, and an early end."""

import threading
import time

import pytest

from mask2former.utils import background
from mask2former.utils.background import ReadAhead, WriteBehind


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def counted(made, n=100):
    for i in range(n):
        made.append(i)
        yield i


def test_items_are_made_ahead_but_not_too_many():
    made = []
    ahead = ReadAhead(counted(made), size=3)
    assert until(lambda: len(made) == 4)  # three wait, one is in the thread's hand
    time.sleep(0.05)
    assert len(made) == 4
    assert list(ahead) == list(range(100))


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield from (1, 2)
        raise ValueError("torn")

    seen = []
    with pytest.raises(ValueError, match="torn"):
        for item in ReadAhead(items(), size=1):
            seen.append(item)
    assert seen == [1, 2]


def test_reading_can_be_given_up():
    threads = threading.active_count()
    ahead = ReadAhead(iter(int, 1), size=2)  # endless
    next(iter(ahead))
    ahead.close()
    assert threading.active_count() == threads


def test_a_source_that_blocks_does_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr(background, "_FAREWELL", 0.05)
    frame = threading.Event()
    ahead = ReadAhead(iter(frame.wait, True), size=2)  # a camera that gives nothing
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 2
    frame.set()
    ahead._thread.join(5)
    assert not ahead._thread.is_alive()


def test_work_is_done_in_order_and_whole_after_close():
    done = []
    behind = WriteBehind(done.append, size=2)
    for i in range(50):
        behind.put(i)
    behind.close()
    assert done == list(range(50))
    behind.close()


def test_the_writer_waits_instead_of_hoarding():
    gate, put = threading.Event(), []
    behind = WriteBehind(lambda _: gate.wait(), size=2)

    def fill():
        for i in range(10):
            behind.put(i)
            put.append(i)

    filler = threading.Thread(target=fill)
    filler.start()
    assert until(lambda: len(put) == 3)
    time.sleep(0.05)
    assert len(put) == 3
    gate.set()
    filler.join()
    behind.close()


def test_an_error_of_the_work_is_raised_once_and_ends_it():
    done = []

    def work(i):
        if i == 2:
            raise OSError("disk full")
        done.append(i)

    behind = WriteBehind(work, size=1)
    with pytest.raises(OSError, match="disk full"):
        for i in range(100):
            behind.put(i)
    behind.close()
    assert done == [0, 1]
