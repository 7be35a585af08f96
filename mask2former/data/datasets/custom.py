"""Data sets that a recipe declares under DATASETS.CUSTOM, without Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mask2former.data.catalog import register_anew
from mask2former.data.datasets.custom_coco import register_instances, register_panoptic, register_videos
from mask2former.data.datasets.custom_folder import SPLITS, register_folders
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


@dataclass(frozen=True)
class CustomType:
    """One TYPE of entry: the function of (name, root, entry) that registers it, and the keys beside TYPE and ROOT.

    `layout` says what is expected below the root, for messages.
    """

    register: Callable[[str, Path, Mapping], None]
    keys: tuple[str, ...]
    layout: str


# TYPE -> how such an entry is registered; user modules add theirs
CUSTOM_TYPES = {
    "sem_seg_folder": CustomType(
        register_folders, ("CLASSES", "IGNORE_LABEL"), "train/images, train/masks, valid/images, valid/masks"
    ),
    "coco_instances": CustomType(register_instances, ("SPLITS",), "the IMAGES and ANNOTATIONS of each of its SPLITS"),
    "coco_panoptic": CustomType(
        register_panoptic, ("SPLITS",), "the IMAGES, ANNOTATIONS and PANOPTIC of each of its SPLITS"
    ),
    "ytvis": CustomType(register_videos, ("SPLITS",), "the IMAGES (frames) and ANNOTATIONS of each of its SPLITS"),
}
_DEFAULT_TYPE = "sem_seg_folder"


def register_custom(name: str, entry: Mapping) -> None:
    """Register the data that one entry of DATASETS.CUSTOM describes, one data set per split: `<name>_<split>`.

    Args:
        name: key of the entry.
        entry: TYPE (one of CUSTOM_TYPES; "sem_seg_folder" when left out), ROOT (relative to the current folder), and
            the keys of that type.

    Raises:
        UserError: an unknown TYPE or key, no ROOT, or what the type's own function finds.
    """
    kind, key = _type_of(name, entry), f"DATASETS.CUSTOM.{name}"
    known = ("TYPE", "ROOT", *kind.keys)
    for word in entry:
        if word not in known:
            raise UserError(f"{key} has no key {word!r}.{suggest(str(word), known)} Known: {', '.join(known)}.")
    if not entry.get("ROOT"):
        raise UserError(f"{key}.ROOT is missing: the folder with {kind.layout}.")
    root = Path(str(entry["ROOT"])).expanduser()
    if not root.is_dir():
        raise UserError(
            f"The folder {root} of data set {name!r} does not exist (current folder: {Path.cwd()}). Expected in it: "
            f"{kind.layout}. Correct {key}.ROOT."
        )
    kind.register(name, root, entry)


@dataclass(frozen=True)
class Refused:
    """Source of records that only says why there are none."""

    reason: str

    def __call__(self) -> list[dict]:
        raise UserError(self.reason)


def register_unused(name: str, entry: Mapping) -> None:
    """As `register_custom`, for an entry that a recipe brings along and does not use, and whose files may be absent.

    What is wrong with it is said when one of its data sets is asked for.
    """
    try:
        register_custom(name, entry)
    except UserError as error:
        for full_name in _names(name, entry):
            register_anew(full_name, Refused(str(error)), {})


def is_declared(name: str, entry: Mapping, used: Iterable[str]) -> bool:
    """Whether one of the data sets `used` comes from the entry `name`."""
    return not _names(name, entry).isdisjoint(used)


def _names(name: str, entry: Mapping) -> set[str]:
    splits = entry.get("SPLITS") if isinstance(entry, Mapping) else None
    return {f"{name}_{split}" for split in (splits if isinstance(splits, Mapping) else SPLITS)}


def _type_of(name: str, entry: Mapping) -> CustomType:
    key = f"DATASETS.CUSTOM.{name}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{key} is {entry!r}; expected a mapping with TYPE, ROOT and the keys of that type.")
    kind = entry.get("TYPE", _DEFAULT_TYPE)
    if kind not in CUSTOM_TYPES:
        raise UserError(
            f"{key}.TYPE is {kind!r}; expected one of {', '.join(map(repr, CUSTOM_TYPES))}."
            f"{suggest(str(kind), CUSTOM_TYPES)}"
        )
    return CUSTOM_TYPES[kind]
