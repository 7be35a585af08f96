import os
import random
import signal

import pytest
import torch
from torch import nn
from toys import ToyLoader, ToyModel, make_optimizer, sample

from mask2former.checkpoint import Checkpointer
from mask2former.engine.hooks import CheckpointHook, HookBase
from mask2former.engine.trainer import NonFiniteLoss, Trainer
from mask2former.solver import GradientClipper
from mask2former.utils.errors import UserError
from mask2former.utils.seed import seed_everything


def make_trainer(max_iter=10, kind="adamw", model=None, loader=None, lr=0.05, **options):
    model = ToyModel() if model is None else model
    optimizer, scheduler = make_optimizer(model, kind, lr)
    loader = ToyLoader() if loader is None else loader
    return Trainer(model, loader, optimizer, scheduler, max_iter=max_iter, **options)


def weights(trainer):
    return {n: t.clone() for n, t in trainer.module.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


class StopAfter(HookBase):
    def __init__(self, done):
        self.done = done

    def after_step(self, trainer):
        if trainer.done == self.done:
            os.kill(os.getpid(), signal.SIGINT)


class DrawNumbers(HookBase):
    """Uses the generators between steps, as user hooks may."""

    def after_step(self, trainer):
        torch.rand(1), random.random()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_ten_steps_equal_five_resume_five_bit_for_bit(kind, accumulate, amp, tmp_path):
    options = {
        "kind": kind,
        "accumulate_steps": accumulate,
        "amp_dtype": amp,
        "clip": GradientClipper("full_model", 1.0),
    }
    seed_everything(1)
    whole = make_trainer(10, hooks=[DrawNumbers()], **options)
    whole.train()

    seed_everything(1)
    first = make_trainer(5, hooks=[DrawNumbers()], **options)
    first.train()
    Checkpointer(tmp_path).save("model_0000004", {"model": first.module.state_dict(), **first.state_dict()})

    seed_everything(99)
    second = make_trainer(10, hooks=[DrawNumbers()], **options)
    state = Checkpointer(tmp_path).load_last()
    second.module.load_state_dict(state["model"])
    second.load_state_dict(state)
    assert second.done == 5
    second.train()

    assert same(weights(whole), weights(second))
    ours, theirs = whole.optimizer.state_dict(), second.optimizer.state_dict()
    assert ours["param_groups"] == theirs["param_groups"]
    assert all(same(ours["state"][i], theirs["state"][i]) for i in ours["state"])
    assert whole.storage.history("total_loss").values()[5:] == second.storage.history("total_loss").values()


def test_changed_rate_acts_after_resume():
    first = make_trainer(5)
    first.train()
    state = first.state_dict()
    second = make_trainer(10, lr=0.5)
    second.load_state_dict(state)
    old, new = ([g["lr"] for g in t.optimizer.param_groups] for t in (first, second))
    assert new == pytest.approx([10 * lr for lr in old])


def test_other_parameter_groups_are_refused():
    state = make_trainer().state_dict()
    model = ToyModel()
    groups = [{"params": list(model.named_parameters()), "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0)
    with pytest.raises(UserError, match="sorts the parameters otherwise"):
        Trainer(model, ToyLoader(), optimizer, scheduler, max_iter=1).load_state_dict(state)


def test_accumulated_batches_equal_one_large_batch():
    results = []
    for loader, steps in ((ToyLoader(8), 1), (ToyLoader(4), 2)):
        torch.manual_seed(0)
        trainer = make_trainer(4, "sgd", ToyModel(noise=False), loader, accumulate_steps=steps)
        trainer.train()
        results.append((weights(trainer), trainer.storage.history("loss_square").values()))
        assert trainer.images == 8
    assert all(torch.allclose(a, results[1][0][n], atol=1e-6) for n, a in results[0][0].items())
    assert [v for v, _ in results[0][1]] == pytest.approx([v for v, _ in results[1][1]], rel=1e-5)


def test_losses_are_recorded_for_every_step():
    trainer = make_trainer(3, model=ToyModel(noise=False))
    trainer.train()
    total, square, absolute = (
        [v for v, _ in trainer.storage.history(n).values()] for n in ("total_loss", "loss_square", "loss_abs")
    )
    assert len(total) == 3 and total == pytest.approx([a + b for a, b in zip(square, absolute)])


def test_losses_kept_on_the_device_are_fetched_together():
    trainer = make_trainer(7)
    trainer._fetch_period = 5  # as on a GPU
    counts = []

    class Count(HookBase):
        def after_step(self, trainer):
            counts.append(len(trainer.storage.history("loss_abs").values()) if "loss_abs" in trainer.storage else 0)

    trainer.hooks = [Count()]
    trainer.train()
    assert counts == [0, 0, 0, 0, 5, 5, 5]
    trainer.state_dict()
    assert len(trainer.storage.history("loss_abs").values()) == 7


class Breaks(ToyModel):
    """Its second loss is not a number from step `at` on."""

    def __init__(self, at):
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, batch):
        losses = super().forward(batch)
        self.calls += 1
        if self.calls > self.at:
            losses["loss_abs"] = losses["loss_abs"] * float("nan")
        return losses


@pytest.mark.parametrize("fetch_period", [1, 20])
def test_broken_loss_stops_with_its_name_and_is_never_saved(fetch_period, tmp_path):
    trainer = make_trainer(10, model=Breaks(at=3))
    trainer._fetch_period = fetch_period
    checkpointer = Checkpointer(tmp_path)
    trainer.hooks = [CheckpointHook(lambda name: checkpointer.save(name, trainer.state_dict()), period=2)]
    with pytest.raises(NonFiniteLoss, match=r"not finite at iteration 3: loss_abs = nan \(of 2 terms\).*BASE_LR"):
        trainer.train()
    assert checkpointer.last().name == "model_0000001.pth"


def test_ctrl_c_finishes_the_step_and_runs_the_last_hooks(tmp_path):
    saved = []
    hooks = [StopAfter(2), CheckpointHook(saved.append, period=100)]
    trainer = make_trainer(10, hooks=hooks)
    before = signal.getsignal(signal.SIGINT)
    trainer.train()
    # the signal came after step 2's losses were fetched: the step after it is the last
    assert trainer.stopped and trainer.done == 3 and saved == ["model_0000002"]
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_interrupts():
    class Twice(HookBase):
        def after_step(self, trainer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_trainer(10, hooks=[Twice()]).train()


def test_checkpoints_at_the_period_and_at_the_end():
    saved = []
    make_trainer(5, hooks=[CheckpointHook(saved.append, period=2)]).train()
    assert saved == ["model_0000001", "model_0000003", "model_final"]


def test_a_list_of_batches_is_a_loader():
    batches = [[sample(0), sample(1)], [sample(2), sample(3)]]
    trainer = make_trainer(5, loader=batches)
    trainer.train()
    assert trainer.done == 5 and trainer.state_dict()["loader"] is None


def test_loader_without_batches():
    with pytest.raises(UserError, match=r"no batch.*DATASETS\.TRAIN"):
        make_trainer(5, loader=[]).train()


def test_frozen_parameters_stay():
    model = ToyModel()
    model.norm.requires_grad_(False)
    before = model.norm.weight.clone()
    groups = [{"params": [(n, p) for n, p in model.named_parameters() if p.requires_grad]}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0)
    Trainer(model, ToyLoader(), optimizer, scheduler, max_iter=2).train()
    assert torch.equal(model.norm.weight, before)


def test_double_precision_stays():
    class Double(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Linear(4, 1).double()
            self.head = nn.Linear(1, 1).double()

        def forward(self, batch):
            return {"loss": self.head(self.backbone(torch.stack([s["x"] for s in batch]).double())).square().mean()}

    trainer = make_trainer(2, model=Double())
    trainer.train()
    assert trainer.module.head.weight.dtype == torch.float64


def test_broken_weights_are_not_saved_even_when_the_loss_was_finite():
    trainer = make_trainer(1)
    trainer.train()
    with torch.no_grad():
        trainer.module.head.weight[0, 0] = float("inf")
    with pytest.raises(NonFiniteLoss, match=r"1 of 6 tensors of weights.*iteration 0, among them head\.weight"):
        trainer.state_dict()
