"""What the processes of test_two_processes.py run; a module of its own, so that they can import it."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.ops import point_sample
from mask2former.utils import comm


def losses_and_gradients(config: str, inputs: list[dict]) -> dict:
    """Mean losses over the ranks and the gradients of their sum, of a seeded model in float64."""
    torch.manual_seed(0)
    model = build_model(load_cfg(config)).double()
    wrapped = DistributedDataParallel(model) if comm.get_world_size() > 1 else model
    with mock.patch.object(point_sample, "random_points", _same_points):
        losses = wrapped(inputs)
    sum(losses.values()).backward()
    ranks = comm.all_gather({name: value.item() for name, value in losses.items()})
    means = {name: sum(rank[name] for rank in ranks) / len(ranks) for name in losses}
    return {"losses": means, "gradients": {name: p.grad for name, p in model.named_parameters()}}


def rank_main(configs: dict[str, str], shares: list[list[list[dict]]], folder: str) -> None:
    """For each config and list of shares, run this rank's one; save the results by the configs' names."""
    rank = dist.get_rank()
    results = {name: [losses_and_gradients(path, share[rank]) for share in shares] for name, path in configs.items()}
    torch.save(results, Path(folder) / f"rank{rank}.pth")


def _same_points(count: int, points: int, like: torch.Tensor) -> torch.Tensor:
    """The same points for every map, so that they do not depend on which maps a process has."""
    generator = torch.Generator().manual_seed(points)
    return torch.rand(1, points, 2, generator=generator, dtype=torch.float64).expand(count, -1, -1)
