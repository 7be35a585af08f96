"""Panoptic results as files: COCO's JSON with a folder of PNG, written and compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mask2former.data.datasets.coco_json import read_json
from mask2former.data.reading import read_panoptic
from mask2former.evaluation.pq import ID_LIMIT, PanopticQuality, pq_stats
from mask2former.structures.labels import LabelSet
from mask2former.utils.errors import UserError

# H, W image size

CHUNK = 8  # images that a process is given at once

_CATEGORY_KEYS, _IMAGE_KEYS = {"id", "name", "isthing"}, {"image_id", "file_name", "segments_info"}


def write_panoptic(ids: np.ndarray, path: str | Path) -> None:
    """Segment ids, integers [H,W] in [0, 2^24), as the colours of a PNG file: id = R + 256 G + 65536 B."""
    if ids.size and (ids.min() < 0 or ids.max() >= ID_LIMIT):
        raise ValueError(f"{path}: segment ids from {ids.min()} to {ids.max()} do not fit into three bytes")
    colors = np.ascontiguousarray(ids, dtype="<u4").view(np.uint8).reshape(*ids.shape, 4)[..., :3]
    Image.fromarray(np.ascontiguousarray(colors)).save(path, compress_level=1)  # flat colours: more effort gains little


def evaluate_panoptic_folder(
    truth_json: str | Path,
    truth_folder: str | Path,
    predicted_json: str | Path,
    predicted_folder: str | Path,
    processes: int | None = None,
) -> dict[str, float]:
    """Panoptic quality of a result folder, as `PanopticEvaluator` saves it, against COCO panoptic annotations.

    Args:
        truth_json: `categories`, and `annotations` with `image_id`, `file_name` and `segments_info`; every image of
            them is evaluated.
        truth_folder: the PNG files of the ground truth.
        predicted_json: `annotations` likewise, at least one per image.
        predicted_folder: the PNG files of the predictions.
        processes: how many share the work, which is mostly reading; None: one per CPU core.

    Returns:
        See :meth:`mask2former.evaluation.pq.PanopticQuality.results`.

    Raises:
        UserError: a file is missing or broken, an image has no prediction, or segments and PNG do not agree.
    """
    truth = _content(truth_json, {"categories": _CATEGORY_KEYS, "annotations": _IMAGE_KEYS})
    predicted = _content(predicted_json, {"annotations": _IMAGE_KEYS})
    predictions = {entry["image_id"]: entry for entry in predicted["annotations"]}
    labels = _labels(truth["categories"])
    places = {own: i for i, own in enumerate(labels.dataset_ids)}
    pairs = []
    for entry in truth["annotations"]:
        if entry["image_id"] not in predictions:
            raise UserError(f"{predicted_json} has no prediction for image {entry['image_id']} of {truth_json}.")
        found = _Png.of(predictions[entry["image_id"]], predicted_folder, places)
        pairs.append((_Png.of(entry, truth_folder, places), found))
    total = PanopticQuality(labels.num_classes)
    for part in _in_processes(partial(_compare, num_classes=labels.num_classes), pairs, processes or os.cpu_count()):
        total.merge(part)
    return total.results(labels)


def _in_processes(function: Callable, items: Sequence, processes: int) -> Iterator:
    """What `function` makes of each item, in order."""
    processes = min(processes, len(items) // CHUNK)
    if processes < 2:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(function, items, chunksize=CHUNK)


@dataclass(frozen=True)
class _Png:
    """A file of segment ids and its segments, with contiguous categories."""

    path: Path
    segments: list[dict]

    @classmethod
    def of(cls, entry: dict, folder: str | Path, places: dict[int, int]) -> _Png:
        """The file of an annotation; `places`: category id of the files -> contiguous number."""
        path = Path(folder) / entry["file_name"]
        if unknown := {s["category_id"] for s in entry["segments_info"]} - places.keys():
            raise UserError(
                f"The segments of {path} have the category ids {sorted(unknown)[:5]}, which are none of the ground "
                "truth's categories. Correct the JSON file that lists them."
            )
        return cls(path, [{**s, "category_id": places[s["category_id"]]} for s in entry["segments_info"]])


def _compare(pair: tuple[_Png, _Png], num_classes: int) -> PanopticQuality:
    """The counts of one image."""
    true, predicted = pair
    ids = read_panoptic(true.path), read_panoptic(predicted.path)
    try:
        return pq_stats(ids[0], true.segments, ids[1], predicted.segments, num_classes)
    except ValueError as error:
        raise UserError(
            f"{predicted.path}, against {true.path}: {error}. Correct the PNG file or the JSON file that lists its "
            "segments."
        ) from error


def _labels(categories: list[dict]) -> LabelSet:
    categories = sorted(categories, key=lambda category: category["id"])
    return LabelSet(
        names=tuple(category["name"] for category in categories),
        thing_ids=tuple(i for i, category in enumerate(categories) if category["isthing"]),
        dataset_ids=tuple(category["id"] for category in categories),
    )


def _content(path: str | Path, lists: dict[str, set[str]]) -> dict:
    """The JSON file, which has these lists of objects with these keys."""
    content = read_json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(name), list) for name in lists):
        raise UserError(f"{path} is not a file of panoptic segments: expected an object with the lists {list(lists)}.")
    for name, keys in lists.items():
        for i, entry in enumerate(content[name]):
            if absent := keys - entry.keys() if isinstance(entry, dict) else keys:
                raise UserError(f"{path}: entry {i} (counted from 0) of {name} has no {sorted(absent)}. Add it.")
    return content
