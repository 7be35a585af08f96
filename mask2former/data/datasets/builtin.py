"""The published data sets: their metadata, the readers of their records, the scripts that make their files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from mask2former.data.catalog import Consulted, DatasetCatalog, MetadataCatalog
from mask2former.data.datasets.cityscapes import CityscapesInstances, CityscapesPanoptic, CityscapesSemantic
from mask2former.data.datasets.coco import CocoInstances
from mask2former.data.datasets.coco_panoptic import CocoPanoptic, CocoSeparated
from mask2former.data.datasets.folder import SemSegFolder
from mask2former.data.datasets.ytvis import YtvisVideos
from mask2former.structures.labels import LabelSet, builtin_labels, read_table
from mask2former.utils.errors import UserError

_PATHS = ("_root", "_file", "_json", "_dir")  # endings of the fields whose values lie below the root

# reader of an entry in tables/datasets.json -> its source, from the entry's fields and the name of the data set
READERS: dict[str, Callable[[dict, str], Callable]] = {
    "sem_seg_folder": lambda f, name: SemSegFolder(f["image_root"], f["sem_seg_root"]),
    "coco_instances": lambda f, name: CocoInstances(f["json_file"], f["image_root"], name),
    "coco_panoptic": lambda f, name: CocoPanoptic(
        f["panoptic_json"], f["image_root"], f["panoptic_root"], name, f.get("sem_seg_root", "")
    ),
    "coco_separated": lambda f, name: CocoSeparated(f["json_file"], f["image_root"], f["sem_seg_root"], name),
    "cityscapes_semantic": lambda f, name: CityscapesSemantic(f["image_dir"], f["gt_dir"]),
    "cityscapes_instances": lambda f, name: CityscapesInstances(f["image_dir"], f["gt_dir"]),
    "cityscapes_panoptic": lambda f, name: CityscapesPanoptic(
        f["panoptic_json"], f["image_root"], f["panoptic_root"], f["gt_dir"], name
    ),
    "ytvis": lambda f, name: YtvisVideos(f["json_file"], f["image_root"], name),
}


@dataclass(frozen=True)
class Published:
    """Source of records of a published data set; says how to get the files that its reader misses.

    name    of the data set
    reader  the source of the records
    files   (path, script in datasets/ that makes it, "" where it is downloaded) of all that the reader needs
    """

    name: str
    reader: Callable[[], list[dict]]
    files: tuple[tuple[str, str], ...]

    def __call__(self) -> list[dict]:
        absent = [(path, script) for path, script in self.files if not os.path.exists(path)]
        if absent:
            listed = "; ".join(f"{path} ({_origin(script)})" for path, script in absent)
            raise UserError(
                f"Data set {self.name!r} needs what does not exist: {listed}. The layout is in datasets/README.md; the "
                "folder above it all is $DETECTRON2_DATASETS, or ./datasets where that is not set."
            )
        return self.reader()


def _origin(script: str) -> str:
    return f"made by `python datasets/{script}`" if script else "part of the download"


def register_builtin(root: str | Path) -> None:
    """Register every published data set below `root`.

    A name that someone else registered keeps its records and its metadata; what the metadata lacks is filled in.

    Args:
        root: folder that holds `ADEChallengeData2016`, `coco` and the others, laid out as `datasets/README.md` says.
            Nothing is read from it before the records are asked for.
    """
    for name, entry in read_table("datasets").items():
        fields = {key: _below(root, value) if key.endswith(_PATHS) else value for key, value in entry["fields"].items()}
        theirs = name in DatasetCatalog and not isinstance(DatasetCatalog.source(name), (Published, Consulted))
        known = {}
        if theirs:
            known = MetadataCatalog.get(name).as_dict()
        elif "reader" in entry:
            source = READERS[entry["reader"]](fields, name)
            scripts, used = entry.get("made_by", {}), astuple(source)
            files = tuple((path, scripts.get(key, "")) for key, path in fields.items() if path in used)
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
            DatasetCatalog.register(name, Published(name, source, files))
        MetadataCatalog.get(name).set(**{**published_metadata(name), **fields, **known})


def published_metadata(name: str) -> dict[str, Any]:
    """Class names, colours and id maps of a published data set, exactly those fields that are published for it."""
    own = builtin_labels(name)
    values = {}
    for field, share in read_table("metadata")[read_table("datasets")[name]["metadata"]].items():
        which, _, table = share.partition(" of ")
        labels = LabelSet.from_dict(read_table(table)) if table else own
        members = {"all": range(labels.num_classes), "things": labels.thing_ids, "stuff": labels.stuff_ids}[which]
        values[field] = _VALUES[field.partition("_")[2]](labels, members)
    return {field: value for field, value in values.items() if value}


# what a field is after "thing_" or "stuff_" -> its value, from labels and class numbers
_VALUES: dict[str, Callable[[LabelSet, Any], Any]] = {
    "classes": lambda labels, members: [labels.names[i] for i in members],
    "colors": lambda labels, members: [list(labels.colors[i]) for i in members] if labels.colors else [],
    "dataset_id_to_contiguous_id": lambda labels, members: {
        (labels.dataset_ids[i] if labels.dataset_ids else i): i for i in members
    },
}


def _below(root: str | Path, path: str | None) -> str | None:
    """`path` below `root`, its trailing slash kept, as published."""
    return None if path is None else os.path.join(root, path)
