"""A small model and loader, and what the processes that tests start run with them."""

from __future__ import annotations

import torch
from torch import nn

from mask2former.checkpoint import Checkpointer
from mask2former.engine.run import _share_buffers
from mask2former.engine.trainer import Trainer
from mask2former.solver.schedules import make_scheduler, polynomial, warmup
from mask2former.utils import comm
from mask2former.utils.errors import UserError


class ToyModel(nn.Module):
    """Two losses of a regression, with dropout and noise so that every random generator matters."""

    def __init__(self, noise: bool = True):
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8) if noise else nn.LayerNorm(8)
        self.head = nn.Linear(8, 1)
        self.noise = noise

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        y = torch.stack([sample["y"] for sample in batch])
        hidden = torch.relu(self.norm(self.backbone(x)))
        if self.noise:
            hidden = nn.functional.dropout(hidden, 0.3) + 0.01 * torch.randn_like(hidden)
        error = self.head(hidden)[:, 0] - y
        return {"loss_square": error.square().mean(), "loss_abs": 0.1 * error.abs().mean()}


class ToyLoader:
    """Sample k of the stream depends on k alone; hands out this rank's share, and can resume."""

    def __init__(self, batch: int = 4, rank: int = 0, world: int = 1):
        self.batch, self.rank, self.world = batch, rank, world
        self.consumed = 0

    def __iter__(self):
        return self

    def __next__(self):
        start = self.consumed * self.batch
        self.consumed += 1
        return [sample(start + i) for i in range(self.rank, self.batch, self.world)]

    def state_dict(self):
        return {"consumed": self.consumed}

    def load_state_dict(self, state):
        self.consumed = state["consumed"]


def sample(position: int) -> dict:
    x = torch.randn(4, generator=torch.Generator().manual_seed(position))
    return {"x": x, "y": x.sum().sin()}


def make_optimizer(model, kind: str = "adamw", lr: float = 0.05, max_iter: int = 10):
    groups = [
        {"params": [(n, p) for n, p in model.named_parameters() if n.startswith("backbone")], "lr": lr / 10},
        {"params": [(n, p) for n, p in model.named_parameters() if not n.startswith("backbone")], "lr": lr},
    ]
    make = {
        "adamw": lambda: torch.optim.AdamW(groups, lr=lr, fused=True),
        "sgd": lambda: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    }[kind]
    optimizer = make()
    return optimizer, make_scheduler(optimizer, polynomial(max_iter, 0.9), warmup(3, 0.1))


# ---------------------------------------------------------------- run by several processes


def train(folder: str, stop: int, resume: bool = False, noise: bool = False) -> dict:
    """Update a toy until `stop`, save it, and return its weights and reported losses."""
    torch.manual_seed(comm.get_rank() if noise else 0)
    model = ToyModel(noise)
    optimizer, scheduler = make_optimizer(model, "sgd")
    loader = ToyLoader(8, comm.get_rank(), comm.get_world_size())
    trainer = Trainer(model, loader, optimizer, scheduler, max_iter=stop)
    checkpointer = Checkpointer(folder)
    if resume:
        state = checkpointer.load_last()
        model.load_state_dict(state["model"])
        trainer.load_state_dict(state)
    trainer.train()
    state = {"model": model.state_dict(), **trainer.state_dict()}
    if comm.is_main_process():
        checkpointer.save(f"model_{stop - 1:07d}", state)
    comm.synchronize()
    losses = [v for v, _ in trainer.storage.history("total_loss").values()]
    return {"model": {n: t.clone() for n, t in model.state_dict().items()}, "losses": losses}


class SumOverTargets(nn.Module):
    """A loss of matched pairs only; rank 1 has nothing to match, which leaves a connected zero."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 1)

    def forward(self, batch):
        x = torch.stack([s["x"] for s in batch])
        return {"loss": self.linear(x[:0] if comm.get_rank() == 1 else x).sum()}


def train_without_targets() -> dict:
    torch.manual_seed(0)
    model = SumOverTargets()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 1.0)
    Trainer(model, ToyLoader(4, comm.get_rank(), 2), optimizer, scheduler, max_iter=3).train()
    return dict(model.state_dict())


def evaluated_averages() -> dict:
    """BatchNorm averages that differ between ranks, as they are when evaluation begins."""
    norm = nn.BatchNorm1d(2)
    norm.running_mean.fill_(comm.get_rank() + 5.0)
    norm.num_batches_tracked.fill_(comm.get_rank() + 3)
    _share_buffers(norm)
    return dict(norm.state_dict())


def two_ranks(folder: str) -> None:
    """Everything that the tests below look at, from one start."""
    result = {
        "world": comm.get_world_size(),
        "trained": train(f"{folder}/trained", 4),
        "whole": train(f"{folder}/whole", 4, noise=True),
        "first": train(f"{folder}/parts", 2, noise=True),
        "second": train(f"{folder}/parts", 4, resume=True, noise=True),
        "without": train_without_targets(),
        "averages": evaluated_averages(),
    }
    torch.save(result, f"{folder}/rank{comm.get_rank()}.pth")


def fail(kind: str) -> None:
    if comm.get_rank() == 1:
        raise UserError("rank 1 found a bad image") if kind == "user" else RuntimeError("a bug")
    comm.synchronize()  # rank 0 waits for a rank that is gone
