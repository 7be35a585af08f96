"""Loading the modules that a recipe names under IMPORTS, whatever package they were written against."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path

from mask2former.compat.importer import install_aliases
from mask2former.data.catalog import DatasetCatalog, MetadataCatalog
from mask2former.utils.imports import import_user_modules

logger = logging.getLogger(__name__)


def load_user_modules(names: Sequence[str], relative_to: Path | None = None) -> None:
    """Import user modules after seeing to the detectron2 names that they may use.

    Where detectron2 is installed, data sets that only its catalogs know are found by ours from now on. Where it is
    not, its names are aliases of this package's objects as soon as there is a module to load.

    Args:
        names, relative_to: see `mask2former.utils.imports.import_user_modules`.

    Raises:
        UserError: a module is not found, or raises while it is imported.
    """
    if not names:
        return
    if not install_aliases():
        connect_catalogs()
    import_user_modules(names, relative_to)


def connect_catalogs() -> None:
    """Let our catalogs ask those of the installed detectron2 for names that they do not have."""
    try:
        theirs = importlib.import_module("detectron2.data")
    except Exception as error:  # built for another torch, for example: this package does not need it
        logger.warning("detectron2 is installed, but its data sets cannot be had: %s: %s", type(error).__name__, error)
        return
    DatasetCatalog.consult(theirs.DatasetCatalog)
    MetadataCatalog.consult(theirs.MetadataCatalog)
