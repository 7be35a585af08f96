"""One process or many: torch's own launcher, or the processes that torchrun has started already."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# the others wait this long for a rank that evaluates, saves or downloads
TIMEOUT = timedelta(minutes=60)
RENDEZVOUS_SECONDS = 900  # for all machines to arrive


def launch(
    main: Callable[..., Any],
    num_gpus: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    args: tuple = (),
) -> None:
    """Run `main(*args)` in as many processes as asked for, with torch.distributed set up between them.

    Under torchrun (RANK and WORLD_SIZE in the environment) this process joins that group, and the other arguments but
    `num_gpus` = 0 are left aside. NCCL connects processes on GPUs, gloo those on CPUs.

    Args:
        main: importable by name, since it may run in a new interpreter.
        num_gpus: processes on this machine, each on a GPU of its own, or all on the CPU where there is no GPU;
            0: one process on the CPU.
        num_machines: machines in the run; each starts the same command with its own `machine_rank`.
        machine_rank: index of this machine.
        dist_url: "tcp://host:port" of machine 0; "auto" with one machine.
        args: for `main`.

    Raises:
        UserError: arguments that do not fit this machine or each other; one that `main` raised, in any process.
    """
    if num_gpus < 0:
        raise UserError(f"--num-gpus is {num_gpus}; expected a number of processes, or 0 for one on the CPU.")
    use_cuda = num_gpus > 0 and torch.cuda.is_available() and not _wants_cpu(args)
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        _in_group(main, use_cuda, args)
        return
    processes = max(num_gpus, 1)
    if use_cuda and processes > torch.cuda.device_count():
        raise UserError(f"--num-gpus {num_gpus}, but this machine has {torch.cuda.device_count()}. Lower --num-gpus.")
    endpoint = _endpoint(num_machines, machine_rank, dist_url)
    if processes * num_machines == 1:
        main(*args)
        return
    config = LaunchConfig(
        min_nodes=num_machines,
        max_nodes=num_machines,
        nproc_per_node=processes,
        run_id="mask2former",
        rdzv_backend="static" if num_machines > 1 else "c10d",
        rdzv_endpoint=endpoint,
        rdzv_configs={"rank": machine_rank, "timeout": RENDEZVOUS_SECONDS},
        local_addr="localhost" if num_machines == 1 else None,  # no look-up of this machine's name
        max_restarts=0,
        start_method="spawn",
    )
    _start_processes(config, main, processes, use_cuda, args)


def _start_processes(config: LaunchConfig, main: Callable[..., Any], *rest) -> None:
    """Run `_worker(<folder for messages>, main, *rest)` in each process; what a worker told is raised here."""
    with tempfile.TemporaryDirectory(prefix="mask2former-") as messages:
        try:
            elastic_launch(config, _worker)(messages, main, *rest)
        except ChildFailedError:
            told = sorted(Path(messages).iterdir())
            if told:
                raise UserError(told[0].read_text()) from None
            raise
        except SignalException as signal:
            raise SystemExit(128 + signal.sigval) from None  # the workers have saved and said so


def _wants_cpu(args: tuple) -> bool:
    """Whether the command line says MODEL.DEVICE cpu; the recipe is read only after the processes have started."""
    opts = list(getattr(args[0], "opts", None) or ()) if args else []
    return any(key == "MODEL.DEVICE" and value == "cpu" for key, value in zip(opts[::2], opts[1::2]))


def _endpoint(num_machines: int, machine_rank: int, dist_url: str) -> str:
    if not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--machine-rank {machine_rank} is not in 0 ... {num_machines - 1} (--num-machines {num_machines})."
        )
    if dist_url == "auto":
        if num_machines > 1:
            raise UserError(
                f"--num-machines {num_machines} needs --dist-url tcp://HOST:PORT, an address of machine 0 that all "
                "machines reach."
            )
        return "localhost:0"  # any free port
    address = urlparse(dist_url)
    if address.scheme != "tcp" or not address.hostname or not address.port:
        raise UserError(f"--dist-url is {dist_url!r}; expected tcp://HOST:PORT or auto.")
    return f"{address.hostname}:{address.port}"


def _worker(messages: str, main: Callable[..., Any], processes: int, use_cuda: bool, args: tuple) -> None:
    """What each started process runs. A UserError goes to the parent through a file, to be told once."""
    if not use_cuda:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))  # they share the cores
    try:
        _in_group(main, use_cuda, args)
    except UserError as error:
        (Path(messages) / f"rank{int(os.environ['RANK']):05d}").write_text(str(error))
        raise SystemExit(2) from None


def _in_group(main: Callable[..., Any], use_cuda: bool, args: tuple) -> None:
    """Run `main` inside the process group that the environment describes."""
    if use_cuda:
        local_rank, found = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local_rank >= found:
            raise UserError(
                f"Process {local_rank} of this machine has no GPU: there are {found}. Start at most {found} processes "
                "(torchrun --nproc-per-node), or pass --num-gpus 0 to run them on the CPU."
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=TIMEOUT)
    try:
        main(*args)
    finally:
        dist.destroy_process_group()
