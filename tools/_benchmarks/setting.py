"""What a run of tools/benchmark.py asks of each benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

_T = TypeVar("_T")


@dataclass(frozen=True)
class Setting:
    """folder: empty, for files; device: of models and ops; quick: tiny sizes, to check results and not the time."""

    folder: Path
    device: torch.device
    quick: bool

    def pick(self, full: _T, quick: _T) -> _T:
        """The one of the two values that this run wants."""
        return quick if self.quick else full
