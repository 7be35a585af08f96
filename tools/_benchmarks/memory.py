"""Peak memory of a call, in a process of its own."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_RESET = Path("/proc/self/clear_refs")  # Linux: "5" written to it makes the peak (VmHWM) start anew
_STATUS = Path("/proc/self/status")


@functools.cache  # a side that meets two rivals is measured once
def peak_memory(make: Callable[[], Callable[[], Any]], calls: int, device: torch.device) -> int | None:
    """Bytes at the peak of `calls` calls, beyond what stood before them and what the last one returns.

    Another process prepares the call by `make()` and measures: on the CPU its resident memory, on a GPU what torch
    has allocated there. None where the system does not tell.
    """
    if device.type == "cpu" and not _RESET.exists():
        return None
    paths = [str(Path(__file__).parents[1]), *filter(None, sys.path)]
    done = subprocess.run(
        [sys.executable, "-m", "_benchmarks.memory"],
        input=pickle.dumps((make, calls, device, torch.get_num_threads())),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    return int(done.stdout.split()[-1])


def _measure() -> None:
    """The other process: reads what to do, and prints the bytes as its last word."""
    make, calls, device, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    call = make()
    before = _start(device)
    for _ in range(calls):
        found = None  # before the next call, as a loop over images would
        found = call()
    print(_peak(device) - before - _size(found))


def _start(device: torch.device) -> int:
    """Forget earlier peaks; bytes in use."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc keeps freed memory, which would be used again uncounted
        libc.malloc_trim(0)
    _RESET.write_text("5")
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024  # it is in kB


def _size(found: Any) -> int:
    """Bytes of the tensors in a result."""
    if isinstance(found, Tensor):
        return found.nbytes
    return sum(map(_size, found)) if isinstance(found, (list, tuple)) else 0


if __name__ == "__main__":
    _measure()
