"""COCO instances: objects with boxes and masks from one JSON file, images from one folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mask2former.data.catalog import DatasetCatalog, MetadataCatalog
from mask2former.data.datasets.coco_checks import (
    check_files,
    crowd_flag,
    measures_problem,
    polygon_problem,
    segmentation_problem,
)
from mask2former.data.datasets.coco_json import check_unique_ids, collector_paused, read_coco
from mask2former.data.datasets.coco_labels import contiguous_ids
from mask2former.data.datasets.objects import XYWH_ABS, measured
from mask2former.structures import builtin_labels
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectSource:
    """Source of records from a JSON file of objects and a folder; equal settings make equal sources."""

    json_file: str
    image_root: str
    dataset_name: str


class CocoInstances(ObjectSource):
    """From a COCO file of instances."""

    def __call__(self) -> list[dict]:
        return load_coco_json(self.json_file, self.image_root, self.dataset_name)


def register_coco_instances(name: str, metadata: Mapping, json_file: str | Path, image_root: str | Path) -> None:
    """Register a data set in COCO's instance format, as detectron2's function of this name does.

    Args:
        name: of the data set, as DATASETS.TRAIN and DATASETS.TEST use it.
        metadata: more attributes of the data set; {} takes the classes from the file when it is first read.
        json_file: annotations.
        image_root: folder of the images; the file names in the JSON are relative to it.

    Raises:
        UserError: the name is taken.
    """
    register_source(CocoInstances(str(json_file), str(image_root), name), metadata, "coco")


def register_source(source: ObjectSource, metadata: Mapping, evaluator_type: str) -> None:
    """Register records and what a JSON file and a folder say of them; `metadata` goes before that."""
    DatasetCatalog.register(source.dataset_name, source)
    fields = {"json_file": source.json_file, "image_root": source.image_root, "evaluator_type": evaluator_type}
    MetadataCatalog.get(source.dataset_name).set(**{**fields, **metadata})


@collector_paused()
def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict]:
    """The records of a COCO file of instances, in the order of its images.

    Args:
        json_file: the file.
        image_root: folder that its file names are relative to.
        dataset_name: data set whose metadata numbers the classes, or gets the classes of the file where it has none.
            Without a name the category ids stay as they are, as in detectron2.
        extra_annotation_keys: more keys of an annotation to keep.

    Returns:
        records with "file_name", "image_id", "height" and "width" (where the file states them) and "annotations": each
        with "id", "bbox" [x, y, w, h] in pixels, "bbox_mode" 1, "category_id", "iscrowd" 0 or 1, "area" in pixels
        and "segmentation", polygons or RLE as in the file.

    Raises:
        UserError: the file is not as it must be, an image does not exist, or an object has an unknown category or a
            broken mask. In published data sets broken polygons are left out and counted instead.
    """
    coco = read_coco(json_file)
    check_unique_ids(coco.path, "annotation", [a for found in coco.by_image.values() for a in found])
    id_map = None
    if dataset_name is not None:
        id_map = contiguous_ids(MetadataCatalog.get(dataset_name), coco.path, coco.categories, panoptic=False)
    reader = ObjectReader(coco.path, id_map, builtin_labels(dataset_name or "") is not None, extra_annotation_keys)
    records = []
    for image in coco.images:
        record = image_record(coco.path, image, os.path.join(image_root, image["file_name"]))
        size = (record["height"], record["width"]) if "height" in record else None
        found = (reader.read(raw, record["file_name"], size) for raw in coco.by_image[image["id"]])
        records.append({**record, "annotations": [annotation for annotation in found if annotation]})
    check_files([r["file_name"] for r in records], f"images of {coco.path}", IMAGES_REMEDY)
    reader.report()
    return records


IMAGES_REMEDY = (
    "Put them there, or correct the image folder: image_root where the data set is registered, IMAGES under "
    "DATASETS.CUSTOM.<name>.SPLITS in a recipe."
)


def image_record(path: str, image: Mapping, file_name: str) -> dict:
    """What a record says of the image itself; "height" and "width" only where the JSON file at `path` states both."""
    record = {"file_name": file_name, "image_id": image["id"]}
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        return record
    if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
        raise UserError(
            f"{path}: image {image['id']!r} ({file_name}) has the height {height!r} and width {width!r}; expected "
            "whole pixels above 0. Correct them, or leave both out: they are then read from the image."
        )
    return {**record, "height": height, "width": width}


class ObjectReader:
    """Annotations of one file -> annotations of records; remembers what it left out."""

    def __init__(self, path: str, id_map: Mapping[int, int] | None, forgiving: bool, extra_keys: Sequence[str] | None):
        self.path, self.id_map, self.forgiving = path, id_map, forgiving
        self.extra_keys = extra_keys or ()
        self.without_mask, self.broken = 0, []

    def read(self, raw: Mapping, file_name: str, size: tuple[int, int] | None) -> dict | None:
        """None for an object that is left out."""
        segmentation = raw.get("segmentation")
        if not segmentation:
            self.without_mask += 1
            return None
        problem = segmentation_problem(segmentation, size)
        if problem and self.forgiving and isinstance(segmentation, list):
            self.broken.append(raw["id"])
            segmentation = [polygon for polygon in segmentation if not polygon_problem(polygon)]
            if not segmentation:
                return None
        elif problem:
            raise UserError(
                f"{self.path}: annotation {raw['id']!r} of image {file_name}: {problem}. Correct the annotation, or "
                "take it out of the file."
            )
        crowd, problem = crowd_flag(raw), measures_problem(raw)
        if crowd is None or problem:
            problem = problem or f"the iscrowd is {raw['iscrowd']!r}; expected 0 or 1"
            raise UserError(f"{self.path}: annotation {raw['id']!r} of image {file_name}: {problem}. Correct it.")
        annotation = {
            "id": raw["id"],
            "bbox": raw.get("bbox"),
            "bbox_mode": XYWH_ABS,
            "category_id": self._category(raw, file_name),
            "iscrowd": crowd,
            "area": raw.get("area"),
            "segmentation": segmentation,
            **{key: raw[key] for key in self.extra_keys if key in raw},
        }
        return annotation if annotation["bbox"] and annotation["area"] is not None else measured(annotation, size)

    def _category(self, raw: Mapping, file_name: str) -> int:
        category = raw.get("category_id")
        if self.id_map is None and isinstance(category, int):
            return category
        if self.id_map is None or not isinstance(category, Hashable) or category not in self.id_map:
            known = some(sorted(self.id_map), 20) if self.id_map else "any number"
            raise UserError(
                f"{self.path}: annotation {raw['id']!r} of image {file_name} has the category_id {category!r}; the "
                f"categories are {known}. Correct it, or add the category."
            )
        return self.id_map[category]

    def report(self) -> None:
        if self.without_mask:
            logger.warning("%s: %d annotations without segmentation are left out", self.path, self.without_mask)
        if self.broken:
            logger.warning("%s: %d annotations have broken polygons, which are left out", self.path, len(self.broken))
