"""The categories of a COCO JSON file: the classes they stand for, and their way to contiguous class numbers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mask2former.data.catalog import Metadata, default_ignore_label, metadata_of
from mask2former.structures.labels import LabelSet, builtin_labels, is_color
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

logger = logging.getLogger(__name__)


def labels_of_categories(path: str, categories: Sequence[dict], panoptic: bool) -> LabelSet:
    """The classes of a COCO file, numbered by ascending category id.

    Args:
        path: the file, for messages.
        categories: with "id" and "name", ascending; "color" (RGB) is used where each category has one.
        panoptic: whether "isthing" (0 or 1) tells things from stuff; in instance files every class is a thing.

    Raises:
        UserError: no category, two of one name, or one without "isthing" where that is needed.
    """
    if not categories:
        raise UserError(f'{path} has no categories. List them: {{"id": 1, "name": "person"}}, ...')
    names, ids = [c["name"] for c in categories], tuple(c["id"] for c in categories)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path} has several categories named {some(twice)}; names of classes must differ.")
    if panoptic and not all(c.get("isthing") in (0, 1) for c in categories):
        which = next(c for c in categories if c.get("isthing") not in (0, 1))
        raise UserError(
            f"{path}: category {which['id']} ({which['name']}) has the isthing {which.get('isthing')!r}; expected 1 "
            "for things (countable) or 0 for stuff. A file of instances is no panoptic file."
        )
    colors = [c.get("color") for c in categories]
    return LabelSet(
        names=tuple(names),
        thing_ids=tuple(i for i, c in enumerate(categories) if not panoptic or c["isthing"]),
        colors=tuple(map(tuple, colors)) if all(map(is_color, colors)) else (),
        ignore_label=default_ignore_label(len(names)),
        dataset_ids=() if ids == tuple(range(len(ids))) else ids,
    )


def contiguous_ids(metadata: Metadata, path: str, categories: Sequence[dict], panoptic: bool) -> dict[int, int]:
    """Category id -> contiguous class number of a data set, as its metadata says.

    Metadata without such a map gets it from the file, with the class names and all that belongs to them, as
    detectron2's readers do.

    Raises:
        UserError: the categories are not those of the published data set, or not those that the metadata names.
    """
    kinds = ("stuff", "thing") if panoptic else ("thing",)
    stated = {}
    for kind in kinds:
        stated.update(metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {})
    if stated:
        if builtin_labels(metadata.name):
            names = metadata.stuff_classes if panoptic else metadata.thing_classes
            _check_published(metadata.name, path, categories, {own: names[i] for own, i in stated.items()})
        return stated
    labels = labels_of_categories(path, categories, panoptic)
    for key, value in metadata_of(labels).items():
        known = metadata.get(key)
        if key.endswith("_classes") and known and list(known) != value:
            raise UserError(
                f"The metadata of data set {metadata.name!r} lists other {key} than {path}: "
                f"{LabelSet(tuple(known)).difference(LabelSet(tuple(value)))}. Leave {key} out of the metadata."
            )
        if known is None:
            metadata.set(**{key: value})
    return {category["id"]: i for i, category in enumerate(categories)}


def _check_published(dataset_name: str, path: str, categories: Sequence[dict], published: dict[int, str]) -> None:
    found = {category["id"]: category["name"] for category in categories}
    absent = [f"{i} ({name})" for i, name in published.items() if i not in found]
    known = set(published.values())
    moved = [f"{i} is {name!r}" for i, name in found.items() if name in known and published.get(i, name) != name]
    if absent or moved:
        problem = f"lacks the categories {some(absent)}" if absent else f"has moved categories: {some(moved)}"
        raise UserError(
            f"{path} {problem}; data set {dataset_name!r} is published with others. Put the published file there, or "
            "declare your own data under DATASETS.CUSTOM with a name of its own."
        )
    spelled = [f"{found[i]!r} for {name!r}" for i, name in published.items() if found[i] != name]
    if spelled:
        logger.warning("%s spells %d category names in its own way: %s", path, len(spelled), some(spelled))
