"""What mmengine's training leaves in a checkpoint beside the weights: its log, read as nothing.

`torch.load(weights_only=True)` refuses a file for one object of an unknown class, and mmengine keeps the curves of a
run in such objects. They are no weights; an empty object that ignores all it is given takes their place.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from mask2former.checkpoint.pickles import numpy_globals

_BUFFER = "mmengine.logging.history_buffer.HistoryBuffer"
_NUMBERS = "?bhilqBHILQefd"  # NumPy's letters for its types of numbers


class _Nothing:
    """Stands for an object: takes any arguments and any state, and keeps none."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _no_attribute(owner: Any, *_: Any) -> None:
    """Stands for `getattr`, by which old pickle protocols name a method: the buffers' means, minima and maxima."""
    if owner is not _Nothing:
        raise pickle.UnpicklingError("Unsupported global: builtins.getattr")  # as torch says of what it refuses


def logbook_globals() -> list[tuple[Callable, str]]:
    """For `torch.serialization.safe_globals`: mmengine's buffers and the arrays of numbers in them."""
    arrays = [(value, f"{module}.{name}") for (module, name), value in numpy_globals().items()]
    types = [type(np.dtype(letter)) for letter in _NUMBERS]
    getters = [(_no_attribute, f"{module}.getattr") for module in ("builtins", "__builtin__")]
    return [(_Nothing, _BUFFER), *getters, *arrays, *((one, f"{one.__module__}.{one.__qualname__}") for one in types)]
