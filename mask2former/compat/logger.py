"""detectron2's `setup_logger`, for user modules that ask for a logger of their own."""

from __future__ import annotations

import logging
from typing import Any

from mask2former.utils.logger import NAME


def setup_logger(output: Any = None, distributed_rank: int = 0, *, name: str = "", **_: Any) -> logging.Logger:
    """A logger below "mask2former", so that what it is told goes where the run's messages go.

    Args:
        output, distributed_rank: of no effect; the run has set up console and files, and a user module that did it
            again would cut them off.
        name: the logger's own name.
    """
    return logging.getLogger(NAME if name in ("", "detectron2", NAME) else f"{NAME}.{name}")
