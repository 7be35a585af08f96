"""Published checkpoints under short names: `zoo://coco/panoptic/R50`.

`zoo.json` holds the published tables of Mask2Former, MaskFormer, DiNAT and mmdetection: names are
dataset/task/backbone[-variant]. A file is downloaded once into iopath's cache and held against the digits of a hash in
its published name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

from iopath.common.file_io import get_cache_dir

from mask2former.config.bases import CONFIGS
from mask2former.utils.errors import UserError
from mask2former.utils.io import local_path

ZOO_PREFIX = "zoo://"
# mmdetection's names carry SHA-256; detectron2's do not say which, and are not SHA-256 for all of its files
_ALGORITHMS = ("sha256", "sha1", "md5")
_HASH_IN_NAME = re.compile(r"[_-]([0-9a-f]{6,64})\.(?:pkl|pth)$")
_BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True, eq=False)
class ZooModel:
    """A published checkpoint.

    name      what follows zoo://
    table     title of the table that it stands in
    model     kind of model
    backbone  as published
    schedule  length of training: epochs, or iterations (k: thousands)
    figures   metric (percent) or memory (its unit in the name) -> published number; None: not published
    recipe    path below the repository's root; None where it is not in configs/
    address   of the file
    """

    name: str
    table: str
    model: str
    backbone: str
    schedule: str
    figures: dict[str, float | None]
    recipe: str | None
    address: str

    @property
    def digits(self) -> str | None:
        """The leading digits of a hash of the file, as its published name has them; None when it has none."""
        found = _HASH_IN_NAME.search(self.address)
        return found[1] if found else None

    @property
    def cached(self) -> Path:
        """Where iopath keeps, or will keep, the downloaded file."""
        return Path(get_cache_dir()) / urlparse(self.address).path.lstrip("/")

    @property
    def recipe_path(self) -> Path | None:
        """The recipe on this machine; None where it is not: an installed package is without `configs/`."""
        path = None if self.recipe is None else CONFIGS.parent / self.recipe
        return path if path is not None and path.is_file() else None


@cache
def zoo() -> dict[str, ZooModel]:
    """Every published checkpoint by its short name, in the order of the tables."""
    tables = json.loads(resources.files(__package__).joinpath("zoo.json").read_text(encoding="utf-8"))
    models = [_read_row(table, row) for table in tables for row in table["rows"]]
    return {model.name: model for model in models}


def _read_row(table: dict, row: list) -> ZooModel:
    cells = dict(zip(table["columns"], row, strict=True))
    recipe, file = cells.pop("recipe"), cells.pop("file")
    return ZooModel(
        name=table["names"] + cells.pop("name"),
        table=table["title"],
        model=cells.pop("model"),
        backbone=cells.pop("backbone"),
        schedule=cells.pop("schedule"),
        figures=cells,  # what is left
        recipe=None if recipe is None else table["recipes"] + recipe,
        address=table["addresses"] + file,
    )


def find_model(name: str, key: str = "MODEL.WEIGHTS") -> ZooModel:
    """The model of a short name, with or without `zoo://`.

    Args:
        name: as in `MODEL_ZOO.md`.
        key: the key or flag that named it, for the message.

    Raises:
        UserError: there is no such name; those that are most like it are listed.
    """
    short = name.removeprefix(ZOO_PREFIX)
    if short in zoo():
        return zoo()[short]
    by_lower = {known.lower(): known for known in zoo()}
    near = [by_lower[found] for found in difflib.get_close_matches(short.lower(), by_lower, n=4)]
    hint = f"Near ones: {', '.join(near)}. " if near else ""
    raise UserError(
        f"The zoo has no '{short}'. {hint}Names are dataset/task/backbone[-variant]; all of them are in MODEL_ZOO.md "
        f"and in `python tools/zoo.py list`. Correct {key}."
    )


def zoo_path(name: str, key: str = "MODEL.WEIGHTS") -> str:
    """The checked file of a short name on this machine, downloaded when it is not in the cache yet.

    Args:
        name: with or without `zoo://`.
        key: the key or flag that named it, for messages.

    Raises:
        UserError: unknown name, no network, or another file than the published one.
    """
    model = find_model(name, key)
    try:
        path = local_path(model.address, key)
    except UserError as error:
        raise UserError(
            f"{ZOO_PREFIX}{model.name} could not be downloaded ({error.__cause__ or error}). On a machine with a "
            f"network, download {model.address} and put it at {model.cached}, where {key} finds it; its path can be "
            "given wherever weights are loaded, too."
        ) from error
    _check_digits(path, model, key)
    return path


def _check_digits(path: str, model: ZooModel, key: str) -> None:
    """Refuse a file of which no hash begins with the digits in its published name."""
    if model.digits is None:
        return
    hashes = {algorithm: hashlib.new(algorithm, usedforsecurity=False) for algorithm in _ALGORITHMS}
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            for value in hashes.values():
                value.update(block)
    found = {algorithm: value.hexdigest()[: len(model.digits)] for algorithm, value in hashes.items()}
    if model.digits not in found.values():
        raise UserError(
            f"{path} is not the published file of {ZOO_PREFIX}{model.name}: a hash of it should begin with "
            f"{model.digits}, as in its name, and they begin with "
            f"{', '.join(f'{digits} ({algorithm})' for algorithm, digits in found.items())}; it has "
            f"{os.path.getsize(path)} bytes. It is probably cut off or damaged: delete it and download it again. If "
            f"you know it to be right, give its path where weights are loaded: paths are not checked. {key} named it."
        )
