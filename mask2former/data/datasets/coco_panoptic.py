"""COCO panoptic segments: one JSON file, one PNG of segment ids per image, images from one folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from mask2former.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from mask2former.data.datasets.coco import IMAGES_REMEDY, image_record, load_coco_json
from mask2former.data.datasets.coco_checks import Listing, check_files, crowd_flag
from mask2former.data.datasets.coco_json import (
    CocoFile,
    check_unique_ids,
    collector_paused,
    is_list_of_objects,
    read_coco,
)
from mask2former.data.datasets.coco_labels import contiguous_ids
from mask2former.data.datasets.folder import SemSegFolder
from mask2former.utils.errors import UserError
from mask2former.utils.text import some

_LARGEST_ID = 256**3 - 1
PNG_REMEDY = (
    "Put them there, or correct the folder: panoptic_root and sem_seg_root where the data set is registered, PANOPTIC "
    "and SEM_SEG under DATASETS.CUSTOM.<name>.SPLITS in a recipe."
)


@dataclass(frozen=True)
class CocoPanoptic:
    """Source of records from a COCO panoptic file; equal settings make equal sources. `sem_seg_root` may be ""."""

    panoptic_json: str
    image_root: str
    panoptic_root: str
    dataset_name: str
    sem_seg_root: str = ""

    def __call__(self) -> list[dict]:
        metadata = MetadataCatalog.get(self.dataset_name)
        return load_coco_panoptic_json(
            self.panoptic_json, self.image_root, self.panoptic_root, metadata, self.sem_seg_root
        )


@dataclass(frozen=True)
class CocoSeparated:
    """Source of records with the objects of a COCO instance file and the masks of a folder of semantic maps."""

    json_file: str
    image_root: str
    sem_seg_root: str
    dataset_name: str

    def __call__(self) -> list[dict]:
        records = load_coco_json(self.json_file, self.image_root, self.dataset_name)
        names = [os.path.relpath(record["file_name"], self.image_root) for record in records]
        maps = [_png_of(self.sem_seg_root, name) for name in names]
        check_files(maps, f"semantic maps of {self.json_file}", PNG_REMEDY)
        return [{**record, "sem_seg_file_name": path} for record, path in zip(records, maps, strict=True)]


def register_coco_panoptic(
    name: str,
    metadata: Mapping,
    image_root: str | Path,
    panoptic_root: str | Path,
    panoptic_json: str | Path,
    instances_json: str | Path | None = None,
) -> None:
    """Register a data set in COCO's panoptic format, as detectron2's function of this name does.

    Args:
        name: of the data set, as DATASETS.TRAIN and DATASETS.TEST use it.
        metadata: more attributes; {} takes the classes from the file when it is first read.
        image_root: folder of the images.
        panoptic_root: folder of the PNG files.
        panoptic_json: annotations.
        instances_json: file of instances of the same images, ground truth of mask and box AP.

    Raises:
        UserError: the name is taken.
    """
    image_root, panoptic_root, panoptic_json = str(image_root), str(panoptic_root), str(panoptic_json)
    DatasetCatalog.register(name, CocoPanoptic(panoptic_json, image_root, panoptic_root, name))
    MetadataCatalog.get(name).set(
        **{
            "panoptic_root": panoptic_root,
            "image_root": image_root,
            "panoptic_json": panoptic_json,
            "json_file": str(instances_json) if instances_json else None,
            "evaluator_type": "coco_panoptic_seg",
            "ignore_label": 255,
            "label_divisor": 1000,
            **metadata,
        }
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: Mapping,
    image_root: str | Path,
    panoptic_root: str | Path,
    panoptic_json: str | Path,
    sem_seg_root: str | Path,
    instances_json: str | Path,
) -> None:
    """Register `<name>_separated`, objects with semantic maps of stuff, and `<name>_stuffonly`, the maps alone.

    The maps number the stuff classes from 1 and hold 0 for every thing, as datasets/prepare_panoptic_fpn.py makes
    them; so classes of objects and of maps are two lists. Arguments as for `register_coco_panoptic`, and:

    Args:
        sem_seg_root: folder of the maps, one PNG per image with the image's stem.

    Raises:
        UserError: a name is taken.
    """
    image_root, sem_seg_root = str(image_root), str(sem_seg_root)
    both, stuff = f"{name}_separated", f"{name}_stuffonly"
    DatasetCatalog.register(both, CocoSeparated(str(instances_json), image_root, sem_seg_root, both))
    DatasetCatalog.register(stuff, SemSegFolder(image_root, sem_seg_root))
    common = {"image_root": image_root, "sem_seg_root": sem_seg_root, "ignore_label": 255}
    panoptic = {"panoptic_root": str(panoptic_root), "panoptic_json": str(panoptic_json)}
    MetadataCatalog.get(both).set(
        **{**common, **panoptic, "json_file": str(instances_json), "evaluator_type": "coco_panoptic_seg", **metadata}
    )
    MetadataCatalog.get(stuff).set(**{**common, "evaluator_type": "sem_seg", **metadata})


@collector_paused()
def load_coco_panoptic_json(
    json_file: str | Path,
    image_dir: str | Path,
    gt_dir: str | Path,
    meta: Mapping | Metadata | None = None,
    sem_seg_dir: str | Path | None = None,
    image_name: Callable[[Mapping], str] = itemgetter("file_name"),
) -> list[dict]:
    """The records of a COCO panoptic file, in the order of its images; images without annotation are left out.

    Args:
        json_file: the file.
        image_dir: folder of the images. One that is not there under its name in the file is looked for as the stem of
            the PNG with ".jpg", as the published readers do.
        gt_dir: folder of the PNG files.
        meta: numbers the classes with `thing_dataset_id_to_contiguous_id` and `stuff_dataset_id_to_contiguous_id`;
            metadata without them gets the classes of the file. None numbers them by ascending category id.
        sem_seg_dir: folder of semantic maps, one PNG per image named as the panoptic one; none if left out.
        image_name: entry of the file's list of images -> path of the image below `image_dir`.

    Returns:
        records with "file_name", "image_id", "height" and "width" (where the file states them), "pan_seg_file_name",
        "segments_info" (each with "id", "category_id", "isthing", "iscrowd", and "area" and "bbox" as in the file)
        and, with `sem_seg_dir`, "sem_seg_file_name".

    Raises:
        UserError: the file is not as it must be, an image or a PNG does not exist, an image is annotated twice, or a
            segment has an unknown category or the id of another one.
    """
    coco = read_coco(json_file)
    metadata = meta if isinstance(meta, Metadata) else Metadata("").set(**(meta or {}))
    id_map = contiguous_ids(metadata, coco.path, coco.categories, panoptic=True)
    thing_categories = set(metadata.get("thing_dataset_id_to_contiguous_id") or ())
    records = []
    for image, annotation in annotated_images(coco):
        png = annotation["file_name"]
        record = image_record(coco.path, image, os.path.join(image_dir, image_name(image)))
        record["pan_seg_file_name"] = os.path.join(gt_dir, png)
        if sem_seg_dir:
            record["sem_seg_file_name"] = _png_of(sem_seg_dir, png)
        segments = annotation["segments_info"]
        record["segments_info"] = read_segments(coco.path, png, segments, id_map, thing_categories)
        records.append(record)
    _find_images(records)
    check_files([r["file_name"] for r in records], f"images of {coco.path}", IMAGES_REMEDY)
    check_files([r["pan_seg_file_name"] for r in records], f"panoptic PNG files of {coco.path}", PNG_REMEDY)
    if sem_seg_dir:
        check_files([r["sem_seg_file_name"] for r in records], f"semantic maps of {coco.path}", PNG_REMEDY)
    return records


def annotated_images(coco: CocoFile) -> list[tuple[dict, dict]]:
    """(image, annotation) of every image that has a panoptic annotation.

    Raises:
        UserError: an image has two, or an annotation lacks its PNG or its list of segments.
    """
    pairs = []
    for image in coco.images:
        annotations = coco.by_image[image["id"]]
        if len(annotations) > 1:
            raise UserError(
                f"{coco.path}: image {image['id']!r} has {len(annotations)} annotations; a panoptic file has one per "
                "image, with a list of segments. Take the others out, or declare the file as instances."
            )
        for annotation in annotations:
            segments = annotation.get("segments_info")
            if not isinstance(annotation.get("file_name"), str) or not is_list_of_objects(segments):
                raise UserError(
                    f"{coco.path}: the annotation of image {image['id']!r} has {sorted(annotation)}; a panoptic file "
                    "has file_name (a PNG) and segments_info (a list of objects) there. A file of instances is "
                    "declared as such: TYPE coco_instances under DATASETS.CUSTOM, or register_coco_instances."
                )
            pairs.append((image, annotation))
    return pairs


def read_segments(
    path: str, png: str, segments: Sequence[Mapping], id_map: Mapping[int, int], thing_categories: set[int]
) -> list[dict]:
    """The segments of one PNG as records have them; `path` is the JSON file, for messages."""
    check_unique_ids(f"{path}, segments of {png}", "segment", segments)
    found = []
    for segment in segments:
        if not isinstance(segment["id"], int) or not 0 < segment["id"] <= _LARGEST_ID:
            raise UserError(
                f"{path}: a segment of {png} has the id {segment['id']!r}; expected 1 to {_LARGEST_ID}, the colours of "
                "a PNG without black (R + 256 G + 65536 B)."
            )
        category, crowd = segment.get("category_id"), crowd_flag(segment)
        if crowd is None:
            raise UserError(
                f"{path}: segment {segment['id']!r} of {png} has the iscrowd {segment['iscrowd']!r}; expected 0 or 1."
            )
        if not isinstance(category, Hashable) or category not in id_map:
            raise UserError(
                f"{path}: segment {segment['id']!r} of {png} has the category_id {category!r}; the categories are "
                f"{some(sorted(id_map), 20)}. Correct it, or add the category."
            )
        found.append(
            {
                **{key: segment[key] for key in ("area", "bbox") if key in segment},
                "id": segment["id"],
                "category_id": id_map[category],
                "isthing": category in thing_categories,
                "iscrowd": crowd,
            }
        )
    return found


def _png_of(folder: str | Path, file_name: str) -> str:
    """The PNG below `folder` under the relative path of another file."""
    return os.path.join(folder, os.path.splitext(file_name)[0] + ".png")


def _find_images(records: Sequence[dict]) -> None:
    """Correct file names of images that are there as the PNG's stem with ".jpg" only."""
    listing = Listing()
    for record in records:
        stem = os.path.splitext(os.path.basename(record["pan_seg_file_name"]))[0]
        other = os.path.join(os.path.dirname(record["file_name"]), f"{stem}.jpg")
        if record["file_name"] not in listing and other in listing:
            record["file_name"] = other
