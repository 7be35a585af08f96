import json
import logging

import pytest
import torch
from toys import ToyLoader, ToyModel, make_optimizer

from mask2former.engine.events import ConsoleWriter, EventStorage, JSONWriter, TensorBoardWriter
from mask2former.engine.hooks import EvalHook, TimerHook, WriterHook
from mask2former.engine.trainer import Trainer


@pytest.fixture
def lines(monkeypatch):
    """What the console writer logs."""
    seen = []
    monkeypatch.setattr(
        logging.getLogger("mask2former.engine.events"), "info", lambda text, *args: seen.append(text % args)
    )
    return seen


def run(folder, max_iter=45, eval_period=0, evaluate=None):
    model = ToyModel()
    optimizer, scheduler = make_optimizer(model, max_iter=max_iter)
    writers = [
        ConsoleWriter(max_iter, torch.device("cpu")),
        JSONWriter(folder / "metrics.json", max_iter),
        TensorBoardWriter(folder),
    ]
    hooks = [TimerHook(), *([EvalHook(evaluate, eval_period)] if evaluate else []), WriterHook(writers)]
    trainer = Trainer(model, ToyLoader(), optimizer, scheduler, max_iter=max_iter, hooks=hooks)
    trainer.train()
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()], trainer


def test_reports_are_medians_of_the_window():
    storage = EventStorage()
    for i, value in enumerate([9.0, 1.0, 2.0, 100.0, 3.0]):
        storage.put("loss", value, i)
        storage.put("lr", value, i, smooth=False)
    assert storage.reported(window=3) == {"loss": (3.0, 4), "lr": (3.0, 4)}
    assert storage.reported(window=5)["loss"] == (3.0, 4)
    assert "loss" in storage and "time" not in storage


def test_metrics_json(tmp_path):
    lines, trainer = run(tmp_path)
    assert [line["iteration"] for line in lines] == [19, 39, 44]
    assert set(lines[0]) == {
        *("iteration", "total_loss", "loss_square", "loss_abs", "lr"),
        *("time", "data_time", "images_per_second", "eta_seconds"),
    }
    values = sorted(v for v, _ in trainer.storage.history("loss_abs").values()[:20])
    assert lines[0]["loss_abs"] == pytest.approx((values[9] + values[10]) / 2)
    assert lines[0]["lr"] == pytest.approx(0.05 * (1 - 19 / 45) ** 0.9)
    assert lines[-1]["eta_seconds"] == 0


def test_evaluations_get_lines_and_leave_no_trace_in_training(tmp_path):
    scores = iter([50.0, 60.0, float("nan")])

    def evaluate():
        torch.rand(3)
        return {"sem_seg/mIoU": next(scores)}

    torch.manual_seed(0)
    lines, with_evaluation = run(tmp_path, 20, 8, evaluate)
    assert [(x["iteration"], x["sem_seg/mIoU"]) for x in lines if "sem_seg/mIoU" in x] == [(15, 60.0), (19, None)]
    torch.manual_seed(0)
    (tmp_path / "b").mkdir()
    _, without = run(tmp_path / "b", 20)
    assert all(torch.equal(a, b) for a, b in zip(with_evaluation.module.parameters(), without.module.parameters()))


def test_console_line(lines, tmp_path):
    storage = EventStorage()
    for i in range(20):
        for name, value in {
            "total_loss": 3.0,
            "loss_ce": 1.0,
            "loss_ce_0": 2.0,
            "time": 0.5,
            "data_time": 0.01,
        }.items():
            storage.put(name, value, i)
        storage.put("lr", 1e-4, i, smooth=False)
        storage.put("images_per_second", 8.0, i)
    writer = ConsoleWriter(7220, torch.device("cpu"))
    writer.write(storage, 19)
    writer.write(storage, 19)
    (line,) = lines
    assert line.startswith("eta: 1:00:00  iter: 19  total_loss: 3  loss_ce: 1  time: 0.5000  last_time: 0.5000")
    assert "data_time: 0.0100  images_per_second: 8.0  lr: 0.0001  max_mem: " in line
    assert "loss_ce_0" not in line
    assert float(line.rpartition(" ")[2].rstrip("M")) > 10


def test_tensorboard_holds_the_same_scalars(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lines, _ = run(tmp_path)
    curves = EventAccumulator(str(tmp_path))
    curves.Reload()
    points = curves.Scalars("loss_abs")
    assert [p.step for p in points] == [19, 39, 44]
    assert [p.value for p in points] == pytest.approx([line["loss_abs"] for line in lines])


def test_second_run_appends(tmp_path):
    run(tmp_path, 20)
    lines, _ = run(tmp_path, 20)
    assert [line["iteration"] for line in lines] == [19, 19]
