"""When oneDNN's kernels, which torch brings for the CPU, may be called by name."""

from __future__ import annotations

import torch
from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether a product with ``x`` may go there: float32 on the CPU, eagerly."""
    return (
        not traced()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


def traced() -> bool:
    """Whether a graph is being recorded: it keeps the plain operators, which every runtime knows."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
