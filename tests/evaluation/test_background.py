"""Calls in threads: order of the results, errors, and how many may wait."""

import threading

import pytest

from mask2former.evaluation.background import Background


def test_results_come_in_the_order_of_the_calls():
    first_may_end, results = threading.Event(), []
    work = Background(results.append)
    work.submit(lambda: first_may_end.wait(10) and "first")
    work.submit(lambda: first_may_end.set() or "second")
    work.finish()
    assert results == ["first", "second"]


def test_an_error_is_raised_to_the_caller_at_the_latest_by_finish():
    work = Background(print)
    with pytest.raises(ZeroDivisionError):
        work.submit(lambda: 1 / 0)
        work.finish()


def test_few_calls_wait():
    unfinished = most = 0

    def collect(_):
        nonlocal unfinished
        unfinished -= 1

    work = Background(collect, threads=1)
    for _ in range(50):
        unfinished += 1
        work.submit(int)
        most = max(most, unfinished)
    work.finish()
    assert unfinished == 0
    assert most <= work.limit


def test_cancelled_work_is_not_collected():
    begun, may_end, results = threading.Event(), threading.Event(), []
    work = Background(results.append, threads=1)
    work.submit(lambda: begun.set() or may_end.wait(10))
    work.submit(results.append, "not begun")
    begun.wait(10)
    threading.Timer(0.05, may_end.set).start()
    work.cancel()
    assert results == []
