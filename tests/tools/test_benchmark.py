"""The benchmark: rivals that give the right result, contests that compare results, and a table."""

import json
from functools import partial

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(tool):
    return tool("benchmark")


@pytest.fixture
def contest(script, tool):
    """Makes a contest of two calls that take no time, and give 1 where nothing else is said."""
    check_close = tool("_benchmarks.contest").check_close

    def make(ours=1.0, rival=1.0):
        same = partial(check_close, "figure", tolerance=1e-6)
        return script.Contest("sum", 10, "images", lambda: ours, lambda: rival, "another", same)

    return make


def test_a_timing_holds_medians_and_their_ratio(script, contest):
    timing = script.Timing(contest(), ours=[1.0, 2.0, 9.0], rival=[6.0, 1.0, 8.0])
    assert timing.ratio == 3
    assert timing.rates == (5, 10 / 6)
    row = script.table([timing]).splitlines()[-1]
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["sum", "5.0", "1.7", "images/s", "3.00", "another"]


def test_sides_take_turns_after_a_warm_up(script):
    calls = []
    turns = script.Contest("", 1, "", lambda: calls.append("o"), lambda: calls.append("r"), "", lambda a, b: None)
    timing = script.hold(turns, 3)
    assert "".join(calls) == "or" * 4
    assert len(timing.ours) == len(timing.rival) == 3


def test_other_results_are_no_contest(script, contest):
    with pytest.raises(ValueError, match="figure is 1.0, the rival's 2.0"):
        script.hold(contest(rival=2.0), 1)


@pytest.mark.parametrize("name", ["ap", "pq", "mapper"])
def test_contests_give_the_same_results(script, tool, tmp_path, monkeypatch, name):
    """Small ones; a difference between ours and the rival is a ValueError."""
    module = getattr(script, name)
    for constant, value in (("IMAGES", 4), ("DENSE_IMAGES", 2), ("PREDICTED", 20)):
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, value)
    for contest in module.contests(tmp_path):
        timing = script.hold(contest, 1)
        assert timing.ratio > 0


def test_the_plain_pq_is_its_definition(script):
    """Two matches of IoU 1 and 0.8 in one class, a missed segment in another, a false one in a third."""
    truth, predicted = np.zeros((2, 1, 30), np.int32)
    truth[0, 0:5], truth[0, 5:10], truth[0, 10:14] = 1, 2, 3
    predicted[0, 0:5], predicted[0, 5:9], predicted[0, 20:30] = 4, 5, 6
    true_segments = [{"id": i, "category_id": k, "iscrowd": 0} for i, k in ((1, 0), (2, 0), (3, 1))]
    segments = [{"id": i, "category_id": k} for i, k in ((4, 0), (5, 0), (6, 2))]
    void = [{"id": 9, "category_id": 5, "iscrowd": 0}]
    assert script.pq.plain_pq([(truth, true_segments, predicted, segments)]) == pytest.approx(100 * 0.9 / 2)
    # the false segment lies on pixels without label: it does not count, unless they have one
    truth[0, 14:] = 9
    found = script.pq.plain_pq([(truth, true_segments + void, predicted, segments)])
    assert found == pytest.approx(100 * 0.9 / 4)


def test_a_run_prints_the_table_and_writes_the_times(script, contest, tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(script.BENCHMARKS, "pq", lambda folder: [contest()])
    assert (
        tool("_common").run_main(script.main, ["--only", "pq", "--repeats", "2", "--json", f"{tmp_path}/o.json"]) == 0
    )
    assert "| sum " in capsys.readouterr().out
    content = json.loads((tmp_path / "o.json").read_text())
    assert len(content["results"][0]["seconds_ours"]) == 2
    assert "torch" in json.dumps(content["environment"])
