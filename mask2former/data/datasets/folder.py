"""Semantic data sets that are two folders: images, and masks of the same stem."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, default_ignore_label, metadata_of
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

SPLITS = ("train", "valid", "val", "test")  # folder names looked for below the root of a custom data set
_LISTED = 5  # files named in a message before it says "and n more"


@dataclass(frozen=True)
class SemSegFolder:
    """Source of records from an image and a mask folder; equal settings make equal sources."""

    image_root: str
    sem_seg_root: str
    image_ext: str = ""
    gt_ext: str = ""

    def __call__(self) -> list[dict]:
        return load_sem_seg(self.sem_seg_root, self.image_root, self.gt_ext, self.image_ext)


def load_sem_seg(
    gt_root: str | Path, image_root: str | Path, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """Pair images with masks by their path below the roots without suffix, in sorted order.

    Args:
        gt_root: folder of masks, searched with its subfolders.
        image_root: folder of images, likewise.
        gt_ext, image_ext: suffix without dot, upper or lower case; "" takes every suffix that Pillow reads.

    Returns:
        records with "file_name", "sem_seg_file_name" and "image_id" (the common path without suffix).

    Raises:
        UserError: a folder is missing or empty, two files have one stem, or files are without partner.
    """
    images = _by_stem(Path(image_root), image_ext, "image")
    masks = _by_stem(Path(gt_root), gt_ext, "mask")
    lonely = [f"image {images[s]} (no mask in {gt_root})" for s in sorted(images.keys() - masks.keys())]
    lonely += [f"mask {masks[s]} (no image in {image_root})" for s in sorted(masks.keys() - images.keys())]
    if lonely:
        raise UserError(
            f"Each image needs a mask of the same stem, and each mask an image; without partner ({len(lonely)}): "
            f"{_some(lonely)}. Add the missing files or move these away."
        )
    return [
        {"file_name": str(images[stem]), "sem_seg_file_name": str(masks[stem]), "image_id": stem}
        for stem in sorted(images)
    ]


def _by_stem(root: Path, ext: str, kind: str) -> dict[str, Path]:
    """Files below `root` by their relative path without suffix; `kind` is "image" or "mask"."""
    if not root.is_dir():
        raise UserError(
            f"The {kind} folder {root} does not exist. Create it, or correct the root of the data set "
            "(DATASETS.CUSTOM.<name>.ROOT; $DETECTRON2_DATASETS for the published ones)."
        )
    if ext:
        suffixes = {"." + ext.lower().lstrip(".")}
    else:
        suffixes = set(Image.registered_extensions()) - {".pdf", ".mpg", ".mpeg"}
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"Two {kind}s have one stem: {found[stem]} and {path}. Move one of them away.")
        found[stem] = path
    if not found:
        wanted = f"*.{ext.lstrip('.')}" if ext else "image files"
        raise UserError(f"The {kind} folder {root} is empty: no {wanted} in it. Put the {kind}s there.")
    return found


def _some(items: Sequence[str]) -> str:
    rest = len(items) - _LISTED
    return "; ".join(items[:_LISTED]) + (f"; and {rest} more" if rest > 0 else "")


def register_custom(name: str, entry: Mapping) -> None:
    """Register the folder that one entry of DATASETS.CUSTOM describes, one data set per split: `<name>_<split>`.

    All of SPLITS get their name; one whose folder is absent says so when it is used.

    Args:
        name: key of the entry.
        entry: TYPE ("sem_seg_folder"), ROOT (relative to the current folder), CLASSES and IGNORE_LABEL. Without
            CLASSES, `classes.json` in ROOT names them: a list of names, or an object with "classes" and, if wanted,
            "ignore_label" and "colors" (RGB per class).

    Raises:
        UserError: an unknown key or TYPE, no ROOT, no split folder in it, or no class names.
    """
    _check_entry(name, entry)
    root = Path(entry["ROOT"]).expanduser()
    if not any((root / split).is_dir() for split in SPLITS):
        problem = "has none of the folders " + ", ".join(SPLITS) if root.is_dir() else "does not exist"
        raise UserError(
            f"The folder {root} of data set {name!r} {problem} (current folder: {Path.cwd()}). Expected train/images, "
            f"train/masks, valid/images, valid/masks in it. Correct DATASETS.CUSTOM.{name}.ROOT."
        )
    labels = _labels(name, root, entry)
    for split in SPLITS:
        folders = SemSegFolder(str(root / split / "images"), str(root / split / "masks"))
        register_folder(f"{name}_{split}", folders, labels)


def register_folder(name: str, source: SemSegFolder, labels: LabelSet) -> None:
    """Register a folder pair with its labels, in place of whatever had the name."""
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
    if name in MetadataCatalog:
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, source)
    MetadataCatalog.get(name).set(
        image_root=source.image_root,
        sem_seg_root=source.sem_seg_root,
        evaluator_type="sem_seg",
        **metadata_of(labels),
    )


_ENTRY_KEYS = ("TYPE", "ROOT", "CLASSES", "IGNORE_LABEL")


def _check_entry(name: str, entry: Mapping) -> None:
    key = f"DATASETS.CUSTOM.{name}"
    if not isinstance(entry, Mapping):
        raise UserError(f"{key} is {entry!r}; expected a mapping with ROOT and, if wanted, CLASSES and IGNORE_LABEL.")
    for word in entry:
        if word not in _ENTRY_KEYS:
            raise UserError(f"{key} has no key {word!r}.{suggest(word, _ENTRY_KEYS)} Known: {', '.join(_ENTRY_KEYS)}.")
    if entry.get("TYPE", "sem_seg_folder") != "sem_seg_folder":
        raise UserError(f"{key}.TYPE is {entry['TYPE']!r}; expected 'sem_seg_folder'.")
    if not entry.get("ROOT"):
        raise UserError(f"{key}.ROOT is missing: the folder with train/images, train/masks, valid/images, valid/masks.")


def _labels(name: str, root: Path, entry: Mapping) -> LabelSet:
    """Names, colours and ignore value; what the recipe says goes before what classes.json says."""
    path = root / "classes.json"
    stored = _read_classes(path) if path.is_file() else {}
    names = entry.get("CLASSES") or stored.get("classes")
    where = f"DATASETS.CUSTOM.{name}.CLASSES" if entry.get("CLASSES") else str(path)
    if not names:
        raise UserError(
            f"Data set {name!r} has no class names. List them under DATASETS.CUSTOM.{name}.CLASSES, or write {path}: "
            '["road", "tree", ...].'
        )
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise UserError(f"{where} must be a list of class names in the order of their ids; got {names!r}.")
    twice = sorted({n for n in names if list(names).count(n) > 1})
    if twice:
        raise UserError(f"{where} names {', '.join(twice)} more than once; class names must differ.")
    ignore = entry.get("IGNORE_LABEL", stored.get("ignore_label", default_ignore_label(len(names))))
    colors = () if entry.get("CLASSES") and list(names) != stored.get("classes") else stored.get("colors") or ()
    if colors and not (isinstance(colors, list) and len(colors) == len(names) and all(map(_is_color, colors))):
        raise UserError(f"{path} has the colors {colors} for {len(names)} classes; give one [r, g, b] per class.")
    return LabelSet(tuple(names), colors=tuple(tuple(c) for c in colors), ignore_label=ignore)


def _is_color(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in value)


def _read_classes(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}).") from error
    if isinstance(content, list):
        return {"classes": content}
    known = ("classes", "ignore_label", "colors")
    if not isinstance(content, dict) or "classes" not in content or set(content) - set(known):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f'{path} must hold a list of class names, or {{"classes": [...], "ignore_label": 255, "colors": [...]}}; '
            f"found {found}."
        )
    return content
