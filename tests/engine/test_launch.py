"""Several processes on one machine, connected by gloo. Starting them costs seconds, so few tests share few starts."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import fail, train, two_ranks

from mask2former.engine.launch import launch
from mask2former.utils.errors import UserError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    launch(two_ranks, num_gpus=2, args=(str(folder),))
    return [torch.load(folder / f"rank{r}.pth", weights_only=True) for r in (0, 1)]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_two_processes_equal_one_with_the_doubled_batch(ranks, tmp_path):
    one = train(str(tmp_path), 4)
    a, b = (rank["trained"] for rank in ranks)
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert same(a["model"], b["model"])
    assert all(torch.allclose(t, one["model"][n], atol=1e-5) for n, t in a["model"].items())
    assert a["losses"] == b["losses"] == pytest.approx(one["losses"], rel=1e-5)


def test_two_processes_resume_bit_for_bit(ranks):
    for rank in ranks:  # each has dropout and noise of its own
        assert rank["whole"]["losses"] == rank["first"]["losses"] + rank["second"]["losses"]
    assert same(ranks[0]["whole"]["model"], ranks[0]["second"]["model"])


def test_a_rank_without_targets_takes_part(ranks):
    assert same(ranks[0]["without"], ranks[1]["without"])


def test_all_ranks_evaluate_the_averages_that_rank_0_saves(ranks):
    assert same(ranks[0]["averages"], ranks[1]["averages"])
    assert ranks[1]["averages"]["running_mean"].tolist() == [5.0, 5.0]


def test_a_user_error_of_any_rank_is_told_once():
    with pytest.raises(UserError, match="^rank 1 found a bad image$"):
        launch(fail, num_gpus=2, args=("user",))


@pytest.mark.slow
def test_other_errors_fail_the_run():
    with pytest.raises(Exception, match="FAILED"):
        launch(fail, num_gpus=2, args=("bug",))


@pytest.mark.slow
def test_torchrun_is_joined(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from toys import two_ranks\nfrom mask2former.engine.launch import launch\n"
        f"launch(two_ranks, num_gpus=0, args=({str(tmp_path)!r},))\n"
    )
    path = os.pathsep.join([str(HERE), str(HERE.parent.parent)])
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", str(script)]
    subprocess.run(command, check=True, timeout=120, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"})
    assert [torch.load(tmp_path / f"rank{r}.pth", weights_only=True)["world"] for r in (0, 1)] == [2, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"num_gpus": -1}, "--num-gpus is -1"),
        ({"num_machines": 2}, "needs --dist-url"),
        ({"num_machines": 2, "dist_url": "tcp://host"}, "expected tcp://HOST:PORT"),
        ({"num_machines": 2, "machine_rank": 2, "dist_url": "tcp://host:1"}, r"--machine-rank 2 is not in 0 \.\.\. 1"),
    ],
)
def test_flags_that_do_not_fit(flags, message):
    with pytest.raises(UserError, match=message):
        launch(fail, args=("",), **flags)


def test_a_torchrun_process_without_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"RANK": "2", "LOCAL_RANK": "2", "WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="Process 2 of this machine has no GPU: there are 2"):
        launch(fail, num_gpus=1, args=("",))


def test_one_process_runs_right_here():
    seen = []
    launch(seen.append, num_gpus=0, args=(SimpleNamespace(opts=[]),))
    assert len(seen) == 1
