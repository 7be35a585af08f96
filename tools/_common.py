"""What the tools share: a recipe with its data sets registered, and how they start.

Python puts the folder of a script on its path, so `python tools/x.py` finds this file as `_common`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mask2former.compat import load_user_modules
from mask2former.config import CfgNode, get_cfg, load_cfg
from mask2former.data.datasets.build import infer_num_classes, register_datasets
from mask2former.utils.logger import setup_logger
from mask2former.utils.program import exit_status


def run_main(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """The exit status of `main`; a UserError is printed and gives 2.

    Args:
        main: takes the command line (None: `sys.argv`) and returns an exit status.
        argv: words of the command line without the program's name.
    """
    setup_logger()
    return exit_status(main, argv)


def load_registered(config_file: str | Path | None, opts: Sequence[Any] = ()) -> CfgNode:
    """A recipe, or without one the defaults, after which every data set that it can name is in `DatasetCatalog`.

    The recipe's user modules are imported, and the published data sets and those of DATASETS.CUSTOM registered.

    Args:
        config_file: recipe (YAML); None: the published data sets alone.
        opts: flat list KEY, VALUE ... that has the last word.

    Raises:
        UserError: the recipe, a user module or a data set's description is not as it must be.
    """
    if config_file is None:
        cfg = get_cfg()
        cfg.merge_from_list(list(opts))
    else:
        cfg = load_cfg(config_file, opts)
        load_user_modules(cfg.IMPORTS, relative_to=Path(config_file).parent)
    register_datasets(cfg)
    infer_num_classes(cfg)
    return cfg


def spread(length: int, count: int) -> list[int]:
    """Up to `count` positions, evenly spread over a list of `length`."""
    count = min(length, count)
    return [i * length // count for i in range(count)]
