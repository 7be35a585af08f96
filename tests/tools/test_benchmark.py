"""The benchmark: rivals that give the right result, contests that compare results, and a table."""

import json
from functools import partial

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def script(tool):
    return tool("benchmark")


@pytest.fixture
def contest(script, tool):
    """Makes a contest of two calls that take no time, and give 1 where nothing else is said."""
    check_close = tool("_benchmarks.contest").check_close

    def make(ours=1.0, rival=1.0, unit="images"):
        same = partial(check_close, "figure", tolerance=1e-6)
        return script.Contest("sum", 10, unit, lambda: ours, lambda: rival, "another", same)

    return make


def test_a_timing_holds_medians_and_their_ratio(script):
    times = {"ours": [1.0, 2.0, 9.0], "rival": [6.0, 1.0, 8.0]}
    timing = script.Timing("sum", 10, "images", "another", **times, flops=3 * 10**9, memory=(2 * 10**6, 5 * 10**5))
    assert timing.ratio == 3
    assert timing.figures == (5, 10 / 6)
    assert _row(script, timing) == ["sum", "5.0", "1.7", "images/s", "3.00", "1500.0", "2.0", "0.5", "another"]
    of_a_call = script.Timing("sum", 1, "ms", "another", **times)
    assert _row(script, of_a_call) == ["sum", "2000.0", "6000.0", "ms", "3.00", "", "", "", "another"]


def _row(script, timing):
    """Of the table, on a machine of 2 GFLOP/s."""
    return [cell.strip() for cell in script.table([timing], 2.0).splitlines()[-1].strip("|").split("|")]


def test_sides_take_turns_after_a_warm_up(script):
    calls = []
    turns = script.Contest("", 1, "", lambda: calls.append("o"), lambda: calls.append("r"), "", lambda a, b: None)
    timing = script.hold(turns, 3)
    assert "".join(calls) == "or" * 4
    assert len(timing.ours) == len(timing.rival) == 3


def test_other_results_are_no_contest(script, contest):
    with pytest.raises(ValueError, match="figure is 1.0, the rival's 2.0"):
        script.hold(contest(rival=2.0), 1)


def test_tensors_may_differ_in_a_share_of_places(tool):
    check, rival = tool("_benchmarks.contest").check_tensors, torch.full((100,), 2.0)
    ours = rival + 1e-4
    check("x", ours, rival, 1e-3)
    with pytest.raises(ValueError, match="100.00% of the numbers differ from the rival's by more than 2e-05"):
        check("x", ours, rival, 1e-5)
    ours[3] = torch.nan
    with pytest.raises(ValueError, match=r"x: 1.00% of the numbers"):
        check("x", ours, rival, 1e-3)
    check("x", ours, rival, 1e-3, share=0.01)
    with pytest.raises(ValueError, match="shape"):
        check("x", ours[None], rival, 1e-3)


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
    monkeypatch.setitem(script.BENCHMARKS, "pq", lambda setting: [contest()])
    words = ["--only", "pq", "--quick", "--threads", "1", "--json", f"{tmp_path}/o.json"]
    assert tool("_common").run_main(script.main, words) == 0
    out = capsys.readouterr().out
    assert "| sum " in out
    assert "the times say nothing" in out
    content = json.loads((tmp_path / "o.json").read_text())
    assert content["quick"]
    assert content["machine"]["threads"] == 1
    assert content["machine"]["GFLOP/s of a float32 matrix product"] > 0
    assert len(content["results"][0]["seconds_ours"]) == 1
    assert "torch" in json.dumps(content["environment"])


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--repeats", "0"], "--repeats must be 1 or more"), (["--threads", "0"], "--threads must be 1 or more")],
)
def test_mistakes_in_the_command_line(script, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        script.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_mistake(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--device", "cuda"])
    assert "torch sees no CUDA device" in capsys.readouterr().err
