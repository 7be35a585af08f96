"""The evaluation loop with a fake model: modes, gradients, callbacks, merging."""

import logging

import pytest
import torch
from torch import nn

from mask2former.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset


class FakeModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.frozen = nn.BatchNorm1d(1)
        self.modes = []

    def forward(self, inputs):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return [{"value": x["image_id"] * 10} for x in inputs]


class Sum(DatasetEvaluator):
    def __init__(self, task="sum"):
        self.task = task

    def reset(self):
        self.total = 0

    def process(self, inputs, outputs):
        self.total += sum(output["value"] for output in outputs)

    def evaluate(self):
        return {self.task: {"total": float(self.total)}}


class Recorder:
    def __init__(self):
        self.seen = []

    def add(self, sample, output):
        self.seen.append((sample["image_id"], output["value"]))


BATCHES = [[{"image_id": 1}], [{"image_id": 2}, {"image_id": 3}], [{"image_id": 4}]]


def test_every_image_reaches_evaluators_and_visualizer():
    recorder = Recorder()
    results = inference_on_dataset(FakeModel(), BATCHES, [Sum("a"), Sum("b")], recorder)
    assert results == {"a": {"total": 100.0}, "b": {"total": 100.0}}
    assert recorder.seen == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_evaluation_mode_without_gradients_and_modes_come_back():
    model = FakeModel()
    model.train()
    model.frozen.eval()
    inference_on_dataset(model, BATCHES, Sum())
    assert model.modes == [(False, False)] * 3
    assert model.training
    assert model.layer.training
    assert not model.frozen.training


def test_modes_come_back_after_an_error():
    class Broken(FakeModel):
        def forward(self, inputs):
            raise RuntimeError("broken")

    model = Broken().train()
    with pytest.raises(RuntimeError, match="broken"):
        inference_on_dataset(model, BATCHES, Sum())
    assert model.training


def test_an_empty_share_is_evaluated(caplog):
    with caplog.at_level(logging.INFO, logger="mask2former"):
        assert inference_on_dataset(FakeModel(), [], Sum()) == {"sum": {"total": 0.0}}


def test_evaluators_start_afresh():
    evaluator = Sum()
    for _ in range(2):
        assert inference_on_dataset(FakeModel(), BATCHES, evaluator) == {"sum": {"total": 100.0}}


def test_two_evaluators_of_one_task_clash():
    evaluators = DatasetEvaluators([Sum(), Sum()])
    evaluators.reset()
    with pytest.raises(ValueError, match="sum"):
        evaluators.evaluate()


def test_times_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("mask2former.evaluation.loop"), "info", said.append)
    inference_on_dataset(FakeModel(), BATCHES, Sum())
    assert said[-1].startswith("Ran 4 images in ")
    assert all(part in said[-1] for part in ("data", "model", "metrics"))
