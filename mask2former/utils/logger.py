"""Where messages go: the console and the log files of the output folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

NAME = "mask2former"
_CONSOLE_FORMAT = "[%(asctime)s] %(levelname)s: %(message)s"
_FILE_FORMAT = "[%(asctime)s] %(levelname)s %(name)s: %(message)s"
_DATE_FORMAT = "%m/%d %H:%M:%S"


def setup_logger(output_dir: str | Path | None = None, rank: int = 0) -> logging.Logger:
    """Set up and return the logger "mask2former", the parent of every module's `logging.getLogger(__name__)`.

    Rank 0 writes to the console (standard output) and, given an output folder, to `log.txt` there; rank r > 0 writes
    to `log.txt.rank<r>` alone. Long listings (config, model, environment: level DEBUG) go to the files only. Calling it
    again replaces what an earlier call set up.

    Args:
        output_dir: folder of the log file, made when absent; None: no file.
        rank: index of this process.
    """
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.addHandler(logging.NullHandler())  # without any handler, Python would print warnings of every rank
    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setLevel(logging.INFO)
        console.setFormatter(logging.Formatter(_CONSOLE_FORMAT, _DATE_FORMAT))
        logger.addHandler(console)
    if output_dir is not None:
        folder = Path(output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / ("log.txt" if rank == 0 else f"log.txt.rank{rank}"))
        file.setFormatter(logging.Formatter(_FILE_FORMAT, _DATE_FORMAT))
        logger.addHandler(file)
    return logger
