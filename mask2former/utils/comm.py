"""Talk between processes. Every function also works, at once, where no process group exists."""

from __future__ import annotations

import secrets
import weakref
from typing import Any

import torch
import torch.distributed as dist


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_rank() -> int:
    """Index of this process among all, 0 to world size - 1."""
    return dist.get_rank() if _in_group() else 0


def get_world_size() -> int:
    """Number of processes that work together."""
    return dist.get_world_size() if _in_group() else 1


def is_main_process() -> bool:
    """Whether this process writes files and talks to the user."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == "nccl":  # named, so that NCCL does not guess the device
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


# default group -> its companion below. Weak: a group that outlives destroy_process_group is torn down with the
# interpreter, perhaps while its threads run; that is the likely cause of rare aborts at exit seen with a strong cache.
_companions: weakref.WeakKeyDictionary[dist.ProcessGroup, dist.ProcessGroup] = weakref.WeakKeyDictionary()


def _gloo_beside(world: dist.ProcessGroup) -> dist.ProcessGroup | None:
    """A group of all ranks that carries CPU memory; None stands for the default group, where that does already.

    Python objects would otherwise travel through device memory under NCCL.
    """
    if dist.get_backend(world) == "gloo":
        return None
    if world not in _companions:
        _companions[world] = dist.new_group(backend="gloo")
    return _companions[world]


def all_gather(obj: Any) -> list[Any]:
    """Every rank's picklable `obj`, in the order of ranks, on every rank."""
    if get_world_size() == 1:
        return [obj]
    out: list[Any] = [None] * get_world_size()
    dist.all_gather_object(out, obj, group=_gloo_beside(dist.group.WORLD))
    return out


def gather(obj: Any, dst: int = 0) -> list[Any]:
    """Every rank's picklable `obj`, in the order of ranks, on rank `dst`; an empty list on the others."""
    if get_world_size() == 1:
        return [obj]
    out: list[Any] | None = [None] * get_world_size() if get_rank() == dst else None
    dist.gather_object(obj, out, dst=dst, group=_gloo_beside(dist.group.WORLD))
    return out if out is not None else []


def shared_random_seed() -> int:
    """A fresh seed in [0, 2**31), the same on every rank. All ranks must call it together."""
    return all_gather(secrets.randbelow(2**31))[0]


def mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of all ranks' tensors, on every rank; not differentiated."""
    if get_world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / get_world_size()
