"""The training loop. `Trainer.step` is all that happens between two states of the weights."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from mask2former.checkpoint import capture_rng, restore_rng
from mask2former.engine.events import EventStorage
from mask2former.engine.stop import StopRequest
from mask2former.solver import restore_scheduler
from mask2former.utils import comm
from mask2former.utils.errors import UserError

if TYPE_CHECKING:
    from mask2former.engine.hooks import HookBase

logger = logging.getLogger(__name__)

# updates whose losses stay on a GPU before they are fetched together: reading one would stall the queue of kernels
FETCH_PERIOD = 20

_REMEDY = (
    "Nothing was saved since; --resume goes on from the last checkpoint. Lower SOLVER.BASE_LR, lengthen "
    "SOLVER.WARMUP_ITERS, clip gradients (SOLVER.CLIP_GRADIENTS), or train without SOLVER.AMP."
)


class NonFiniteLoss(UserError):
    """A loss, or a weight, became infinite or not a number."""


class Trainer:
    """Updates a model from a stream of batches until `max_iter` updates are done.

    Under a process group the model is wrapped in DistributedDataParallel, and losses are reported as means over ranks.

    Args:
        model: batch -> dict of scalar losses that are added up; on its device.
        loader: any iterable of batches with len(); one that ends is started again. With `state_dict` and
            `load_state_dict`, its position is part of the trainer's state.
        optimizer: over the parameters of `model`.
        scheduler: stepped once per update.
        max_iter: number of updates.
        clip: limits the gradients, given the trainable parameters.
        amp_dtype: autocast to this dtype; None: full precision. float16 comes with loss scaling.
        accumulate_steps: batches per update.
        hooks: called around the loop and around each step, in order.

    `done` counts finished updates; `data_time` (seconds waited for batches) and `images` (on all ranks, taking them to
    have equal shares) are those of the last one; `storage` holds the measured scalars; `stopped` says that the loop
    ended early because the process was asked to (Ctrl-C, SIGTERM).
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable,
        optimizer: Optimizer,
        scheduler: LRScheduler,
        *,
        max_iter: int,
        clip: Callable[[Sequence[Tensor]], None] | None = None,
        amp_dtype: torch.dtype | None = None,
        accumulate_steps: int = 1,
        hooks: Sequence[HookBase] = (),
    ):
        self.module = model
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.model = _distributed(model, self.device) if comm.get_world_size() > 1 else model
        self.loader, self.optimizer, self.scheduler = loader, optimizer, scheduler
        self.max_iter, self.clip, self.amp_dtype, self.accumulate_steps = max_iter, clip, amp_dtype, accumulate_steps
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=amp_dtype is torch.float16)
        self.hooks = list(hooks)
        self.storage = EventStorage()
        self.done = 0
        self.stopped = False
        self.data_time = 0.0
        self.images = 0
        self._batches = _endless(loader)
        self._fetch_period = FETCH_PERIOD if self.device.type == "cuda" else 1
        self._pending: list[tuple[int, dict[str, Tensor]]] = []  # (update, losses still on the device)
        self._stop = StopRequest(patient=comm.get_world_size() > 1)

    def train(self) -> None:
        """Run the updates that are left.

        Raises:
            NonFiniteLoss: found at the next fetch of losses, before anything broken is saved.
        """
        logger.info("training from iteration %d to %d", self.done, self.max_iter)
        self.module.train()
        with self._stop:
            self._call("before_train")
            while self.done < self.max_iter and not self.stopped:
                self._call("before_step")
                self.step()
                self._maybe_fetch()
                self._call("after_step")
            if self.stopped:  # a repeated signal must not cut the saving short
                self._call("after_train")
        if not self.stopped:
            self._call("after_train")

    def step(self) -> None:
        """One update of the weights, from `accumulate_steps` batches."""
        self.data_time, self.images = 0.0, 0
        self.optimizer.zero_grad()
        reported: dict[str, Tensor] = {}
        for part in range(self.accumulate_steps):
            batch = self._next_batch()
            # gradients travel between ranks with the last batch only
            with self._local_gradients(part < self.accumulate_steps - 1):
                with torch.autocast(self.device.type, self.amp_dtype, enabled=self.amp_dtype is not None):
                    losses = self.model(batch)
                total = sum(losses.values()) / self.accumulate_steps
                self.scaler.scale(total).backward()
            for name, value in losses.items():
                reported[name] = reported.get(name, 0) + value.detach() / self.accumulate_steps
        if self.clip is not None:
            self.scaler.unscale_(self.optimizer)
            self.clip(self.parameters)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self._pending.append((self.done, reported))
        self.done += 1

    def fetch(self) -> None:
        """Bring the pending losses into `storage`, as means over ranks; all ranks call it together.

        Raises:
            NonFiniteLoss: one of them is infinite or not a number; every rank raises.
        """
        if not self._pending:
            return
        names = sorted(self._pending[0][1])
        rows = [torch.stack([losses[name].float() for name in names]) for _, losses in self._pending]
        # the wish to stop travels along, so that all ranks stop after the same update
        flag = torch.tensor([float(self._stop.requested)], device=self.device)
        table = torch.cat([*rows, flag])
        if comm.get_world_size() > 1:
            dist.all_reduce(table)
            table /= comm.get_world_size()
        *values, wish = table.tolist()
        self.stopped = wish > 0
        for i, (iteration, _) in enumerate(self._pending):
            losses = dict(zip(names, values[i * len(names) : (i + 1) * len(names)], strict=True))
            _check_finite(losses, iteration)
            for name, value in {**losses, "total_loss": sum(losses.values())}.items():
                self.storage.put(name, value, iteration)
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """All that the next update depends on beside the weights, as tensors and plain values; all ranks call it.

        "iteration" is the index of the last finished update, as in detectron2's checkpoints; "rng" has one entry per
        rank.
        """
        self.fetch()  # never save weights whose losses were not looked at
        self._check_weights()
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loader": self.loader.state_dict() if hasattr(self.loader, "state_dict") else None,
            "rng": comm.all_gather(capture_rng()),
            "iteration": self.done - 1,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was called. Rates, decay and schedule are this run's, so that changed keys act."""
        _load_optimizer(self.optimizer, state["optimizer"])
        restore_scheduler(self.scheduler, state["scheduler"])
        if state["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if state["loader"] is not None and hasattr(self.loader, "load_state_dict"):
            self.loader.load_state_dict(state["loader"])
        self.done = state["iteration"] + 1
        if len(state["rng"]) == comm.get_world_size():
            restore_rng(state["rng"][comm.get_rank()])
        else:
            logger.warning(
                "the checkpoint comes from %d processes, now there are %d: random numbers start afresh",
                len(state["rng"]),
                comm.get_world_size(),
            )

    def _check_weights(self) -> None:
        """A finite loss can still have had gradients that broke the weights."""
        finite = torch.stack([p.isfinite().all() for p in self.parameters]).tolist()
        names = [name for name, p in self.module.named_parameters() if p.requires_grad]
        broken = [name for name, ok in zip(names, finite, strict=True) if not ok]
        if broken:
            raise NonFiniteLoss(
                f"{len(broken)} of {len(names)} tensors of weights are not finite after iteration {self.done - 1}, "
                f"among them {broken[0]}. {_REMEDY}"
            )

    def _next_batch(self) -> Any:
        start = time.perf_counter()
        batch = next(self._batches)
        self.data_time += time.perf_counter() - start
        self.images += len(batch) * comm.get_world_size()
        return batch

    def _local_gradients(self, local: bool) -> contextlib.AbstractContextManager:
        keep = local and isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if keep else contextlib.nullcontext()

    def _maybe_fetch(self) -> None:
        alone_and_asked = comm.get_world_size() == 1 and self._stop.requested
        if self.done % self._fetch_period == 0 or alone_and_asked:
            self.fetch()

    def _call(self, moment: str) -> None:
        for hook in self.hooks:
            getattr(hook, moment)(self)


def _distributed(model: nn.Module, device: torch.device) -> DistributedDataParallel:
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # torch >= 2.13
    return DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,  # saves one copy of the gradients
        # BN's running averages are not sent around in every step: training does not read them
        **{buffers: False},
    )


def _endless(loader: Iterable) -> Iterator:
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise UserError("The training data has no batch. Check DATASETS.TRAIN and SOLVER.IMS_PER_BATCH.")


def _check_finite(losses: dict[str, float], iteration: int) -> None:
    broken = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if broken:
        raise NonFiniteLoss(
            f"Loss is not finite at iteration {iteration}: {', '.join(f'{n} = {v}' for n, v in broken.items())} "
            f"(of {len(losses)} terms). {_REMEDY}"
        )


def _load_optimizer(optimizer: Optimizer, state: dict) -> None:
    saved = [group.get("param_names") for group in state["param_groups"]]
    ours = [group.get("param_names") for group in optimizer.param_groups]
    if saved != ours:
        raise UserError(
            "The checkpoint's optimiser sorts the parameters otherwise than this recipe: "
            f"groups of {[len(n or ()) for n in saved]} against {[len(n or ()) for n in ours]} parameters. Resume with "
            "the recipe it was made with (MODEL.BACKBONE.FREEZE_AT and the SOLVER keys of weight decay and rates "
            "included), or start a new run from it with MODEL.WEIGHTS."
        )
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
