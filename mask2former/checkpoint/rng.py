"""The state of every random generator of this process, as tensors and plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def capture_rng() -> dict:
    """States of torch (CPU and this process's CUDA device), NumPy and Python; all that `restore_rng` needs."""
    algorithm, keys, position, has_gauss, cached_gaussian = np.random.get_state()
    version, words, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [str(algorithm), keys.tolist(), int(position), int(has_gauss), float(cached_gaussian)],
        "python": [version, list(words), gauss_next],
    }


def restore_rng(state: dict) -> None:
    """Set every generator to a state that `capture_rng` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    algorithm, keys, position, has_gauss, cached_gaussian = state["numpy"]
    np.random.set_state((algorithm, np.array(keys, dtype=np.uint32), position, has_gauss, cached_gaussian))
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """What is drawn inside leaves no trace outside."""
    state = capture_rng()
    try:
        yield
    finally:
        restore_rng(state)
