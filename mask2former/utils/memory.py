"""Memory of large tensors on the CPU."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

# numbers of glibc's parameters in malloc.h, with the most it takes for the second
_KEEP = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_MMAP_THRESHOLD": (-3, 2**25), "M_TOP_PAD": (-2, 2**26)}
LARGE = 2**23  # bytes; below it pages cost little


def empty_large(
    size: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """As torch.empty; on Linux's CPUs, large ones are in large pages where the system has them.

    A result of 200 MB has 50,000 pages of 4 KB, and to be given them takes longer than to fill them: of 150 classes at
    512x683, five times as long as to be given pages of 2 MB. It is an advice to the system, without it all still works.
    """
    result = torch.empty(size, dtype=dtype, device=device, memory_format=memory_format)
    if result.nbytes >= LARGE and result.device.type == "cpu" and sys.platform == "linux":
        page = mmap.PAGESIZE
        start, end = -(-result.data_ptr() // page) * page, (result.data_ptr() + result.nbytes) // page * page
        advise = ctypes.CDLL(None).madvise
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_HUGEPAGE)
    return result


def keep_freed_memory() -> None:
    """Let this process keep what tensors free, for those to come, instead of giving it back to the system.

    A training step asks for the same hundreds of MB each time; to be given them anew takes a tenth of it. The peak
    stays the same. A setting of glibc's, of the whole process: for programs to call, not for libraries. Elsewhere
    nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _KEEP.values():
            mallopt(parameter, value)
