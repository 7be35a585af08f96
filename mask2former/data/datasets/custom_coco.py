"""Entries of DATASETS.CUSTOM in COCO's formats and YouTube-VIS's, which is built like them.

JSON files of instances, panoptic JSON files with PNG folders, or JSON files of tracks with folders of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from mask2former.data.catalog import metadata_of, register_anew
from mask2former.data.datasets.coco import CocoInstances
from mask2former.data.datasets.coco_json import read_coco
from mask2former.data.datasets.coco_labels import labels_of_categories
from mask2former.data.datasets.coco_panoptic import CocoPanoptic
from mask2former.data.datasets.ytvis import YtvisVideos
from mask2former.data.datasets.ytvis_json import read_ytvis
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

_INSTANCE_KEYS = ("IMAGES", "ANNOTATIONS")
_PANOPTIC_KEYS = ("IMAGES", "ANNOTATIONS", "PANOPTIC")
_PANOPTIC_OPTIONS = ("SEM_SEG", "INSTANCES")


def register_instances(name: str, root: Path, entry: Mapping) -> None:
    """Register `<name>_<split>` for each of SPLITS, each with IMAGES and ANNOTATIONS (COCO instances) below the root.

    Raises:
        UserError: a key or a file is missing, a JSON file is broken, or the splits have different categories.
    """
    splits = _paths(name, root, entry, _INSTANCE_KEYS, ())
    for split, labels in _labels(name, splits, panoptic=False).items():
        paths, full_name = splits[split], f"{name}_{split}"
        source = CocoInstances(paths["ANNOTATIONS"], paths["IMAGES"], full_name)
        fields = {"image_root": source.image_root, "json_file": source.json_file, "evaluator_type": "coco"}
        register_anew(full_name, source, {**metadata_of(labels), **fields})


def register_panoptic(name: str, root: Path, entry: Mapping) -> None:
    """Register `<name>_<split>` for each of SPLITS, each with IMAGES, ANNOTATIONS (COCO panoptic JSON) and PANOPTIC.

    SEM_SEG, a folder of semantic maps, and INSTANCES, a JSON file of instances of the same images, may be added.

    Raises:
        UserError: as for `register_instances`.
    """
    splits = _paths(name, root, entry, _PANOPTIC_KEYS, _PANOPTIC_OPTIONS)
    for split, labels in _labels(name, splits, panoptic=True).items():
        paths, full_name = splits[split], f"{name}_{split}"
        source = CocoPanoptic(
            paths["ANNOTATIONS"], paths["IMAGES"], paths["PANOPTIC"], full_name, paths.get("SEM_SEG", "")
        )
        fields = {
            "image_root": source.image_root,
            "panoptic_root": source.panoptic_root,
            "panoptic_json": source.panoptic_json,
            "json_file": paths.get("INSTANCES"),
            "evaluator_type": "coco_panoptic_seg",
            "label_divisor": 1000,
        }
        if source.sem_seg_root:
            fields["sem_seg_root"] = source.sem_seg_root
        register_anew(full_name, source, {**metadata_of(labels), **fields})


def register_videos(name: str, root: Path, entry: Mapping) -> None:
    """Register `<name>_<split>` for each of SPLITS, each with IMAGES (frames) and ANNOTATIONS (YouTube-VIS JSON).

    Raises:
        UserError: as for `register_instances`.
    """
    splits = _paths(name, root, entry, _INSTANCE_KEYS, ())
    for split, labels in _labels(name, splits, panoptic=False, read=read_ytvis).items():
        paths, full_name = splits[split], f"{name}_{split}"
        source = YtvisVideos(paths["ANNOTATIONS"], paths["IMAGES"], full_name)
        fields = {"image_root": source.image_root, "json_file": source.json_file, "evaluator_type": "ytvis"}
        register_anew(full_name, source, {**metadata_of(labels), **fields})


def _paths(
    name: str, root: Path, entry: Mapping, needed: tuple[str, ...], options: tuple[str, ...]
) -> dict[str, dict[str, str]]:
    """Split -> key -> path; every path exists, except those of splits whose ANNOTATIONS are not there."""
    splits, key = entry.get("SPLITS"), f"DATASETS.CUSTOM.{name}.SPLITS"
    if not isinstance(splits, Mapping) or not splits:
        raise UserError(
            f"{key} is {splits!r}; expected a mapping from splits to {', '.join(needed)}, paths below ROOT, as in "
            "train: {IMAGES: train/images, ANNOTATIONS: annotations/train.json}."
        )
    return {split: _paths_of_split(f"{key}.{split}", root, values, needed, options) for split, values in splits.items()}


def _paths_of_split(
    key: str, root: Path, values: Mapping, needed: tuple[str, ...], options: tuple[str, ...]
) -> dict[str, str]:
    if not isinstance(values, Mapping):
        raise UserError(f"{key} is {values!r}; expected a mapping with {', '.join(needed)}.")
    known = (*needed, *options)
    for word in values:
        if word not in known:
            raise UserError(f"{key} has no key {word!r}.{suggest(str(word), known)} Known: {', '.join(known)}.")
    for word in needed:
        if not values.get(word):
            raise UserError(f"{key}.{word} is missing; a split needs {', '.join(needed)}, paths below ROOT.")
    return {word: str(root / str(path)) for word, path in values.items() if path}


def _labels(
    name: str, splits: Mapping[str, Mapping[str, str]], panoptic: bool, read: Callable = read_coco
) -> dict[str, LabelSet]:
    """Split -> its labels, which agree in all splits but for the numbers that the files use; `read` reads the files.

    A split whose JSON file is absent takes those of the first one that is there, and says so when it is used.
    """
    key = f"DATASETS.CUSTOM.{name}.SPLITS"
    found: dict[str, LabelSet] = {}
    for split, paths in splits.items():
        path = paths["ANNOTATIONS"]
        if not Path(path).is_file():
            continue
        for word, other in paths.items():
            if not Path(other).exists():
                raise UserError(f"{other} does not exist. Put it there, or correct {key}.{split}.{word}.")
        found[split] = labels_of_categories(path, read(path).categories, panoptic)
    if not found:
        path = next(iter(splits.values()))["ANNOTATIONS"]
        raise UserError(f"{path} does not exist. Put it there, or correct {key}.{next(iter(splits))}.ANNOTATIONS.")
    first = next(iter(found))
    for split, labels in found.items():
        difference = found[first].difference(labels)
        if difference:
            raise UserError(
                f"The splits {first!r} ({splits[first]['ANNOTATIONS']}) and {split!r} ({splits[split]['ANNOTATIONS']}) "
                f"of data set {name!r} have different categories: {difference}. Give all files the same categories."
            )
    return {split: found.get(split, found[first]) for split in splits}
