"""COCO's JSON files: read, and checked as a whole before anything in them is used."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mask2former.utils.errors import UserError
from mask2former.utils.text import some

_LISTS = ("images", "annotations", "categories")
# type of a field -> what is expected there, for messages; else text
_KINDS = {Hashable: "a number or text", int: "a whole number", list: "a list"}
_WITHOUT_ANNOTATIONS = "image_info"  # how the names of COCO's files for test sets begin


@dataclass(frozen=True)
class CocoFile:
    """What a COCO JSON file holds.

    path         the file
    images       its images, in order
    by_image     image id -> the annotations of that image, in order; every image has an entry
    categories   its categories by ascending id
    """

    path: str
    images: list[dict]
    by_image: dict[Hashable, list[dict]]
    categories: list[dict]


def read_json(path: str | Path) -> object:
    """The content of a JSON file; a missing or broken one is a UserError with the place of the mistake."""
    try:
        with collector_paused():
            return json.loads(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise UserError(
            f"Annotation file {path} does not exist. Put it there, or correct its path (json_file or panoptic_json "
            "where the data set is registered, SPLITS under DATASETS.CUSTOM in a recipe)."
        ) from error
    except json.JSONDecodeError as error:
        raise UserError(
            f"Annotation file {path} is broken JSON: {error.msg} at line {error.lineno}, column {error.colno}. "
            "It may be cut off: copy or export it again."
        ) from error
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"Annotation file {path} cannot be read ({error}).") from error


@contextmanager
def collector_paused():
    """Millions of new objects, none of them garbage: looking for garbage among them takes a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def read_coco(path: str | Path) -> CocoFile:
    """Read a COCO file of instances or of panoptic segments.

    Raises:
        UserError: no such file, broken JSON, one of its three lists missing, an image or category without name, two
            images or two categories of one id, or an annotation of an unknown image.
    """
    path, content = str(path), read_json(path)
    if isinstance(content, dict) and os.path.basename(path).startswith(_WITHOUT_ANNOTATIONS):
        content.setdefault("annotations", [])
    if not isinstance(content, dict) or not all(is_list_of_objects(content.get(key)) for key in _LISTS):
        found = f"an object with {sorted(content)[:10]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(
            f"{path} is not a COCO file: expected an object with the lists of objects {', '.join(_LISTS)}; found "
            f'{found}. Name another file; a set without annotations has "annotations": [].'
        )
    images, annotations, categories = (content[key] for key in _LISTS)
    check_fields(path, "image", images, {"id": Hashable, "file_name": str})
    check_fields(path, "category", categories, {"id": int, "name": str})
    check_unique_ids(path, "image", images)
    check_unique_ids(path, "category", categories)
    return CocoFile(path, images, _grouped(path, images, annotations), sorted(categories, key=lambda c: c["id"]))


def check_unique_ids(path: str, kind: str, entries: Sequence[dict]) -> None:
    """Raise UserError unless the entries of the file (images, videos, categories or annotations) have own ids."""
    ids = [entry.get("id") for entry in entries]
    if unusable := [i for i in ids if not isinstance(i, Hashable)]:
        raise UserError(f"{path}: an id of {kind} entries is {unusable[0]!r}; expected a number or text.")
    if len(set(ids)) == len(ids) and None not in ids:
        return
    if None in ids:
        raise UserError(f"{path}: {kind} {ids.index(None)} (counted from 0) has no id. Give each {kind} its own id.")
    twice = [f"{i!r} ({n} times)" for i, n in Counter(ids).items() if n > 1]
    raise UserError(f"{path} has several {kind} entries of one id: {some(twice)}. Give each {kind} its own id.")


def is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def check_fields(path: str, kind: str, entries: Sequence[dict], types: dict[str, type]) -> None:
    """Raise UserError unless the entries of the file ("image", "video" or "category") have fields of these types."""
    for i, entry in enumerate(entries):
        for key, kind_of_value in types.items():
            if not isinstance(entry.get(key), kind_of_value) or entry[key] is None:
                raise UserError(
                    f"{path}: {kind} {i} (counted from 0) has the {key} {entry.get(key)!r}; expected "
                    f"{_KINDS.get(kind_of_value, 'text')}. It has {sorted(entry)}."
                )


def _grouped(path: str, images: Sequence[dict], annotations: Sequence[dict]) -> dict[Hashable, list[dict]]:
    by_image: dict[Hashable, list[dict]] = {image["id"]: [] for image in images}
    try:
        for annotation in annotations:
            by_image[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError):
        raise UserError(
            f"{path}: annotation {annotation.get('id', annotation.get('file_name'))!r} has the image_id "
            f"{annotation.get('image_id')!r}, which none of the {len(images)} images has. Correct it, or take the "
            "annotation out."
        ) from None
    return by_image
