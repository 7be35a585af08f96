"""The published data sets: labels of all, records of those that are an image and a mask folder."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, metadata_of
from mask2former.data.datasets.folder import SemSegFolder, register_folder
from mask2former.structures import builtin_labels

_PATHS = ("_root", "_file", "_json", "_dir")  # endings of the keys whose values lie below the root


def register_builtin(root: str | Path) -> None:
    """Register every published image data set below `root`.

    A name that someone else registered keeps its records and its metadata; what the metadata lacks is filled in.

    Args:
        root: folder that holds `ADEChallengeData2016`, `coco` and the others, laid out as `datasets/README.md` says.
            Nothing is read from it before the records are asked for.
    """
    table = files("mask2former") / "data" / "datasets" / "tables" / "datasets.json"
    for name, entry in json.loads(table.read_text(encoding="utf-8")).items():
        labels = builtin_labels(name)
        fields = {
            key: str(Path(root, value)) if key.endswith(_PATHS) else value
            for key, value in entry.items()
            if key not in ("labels", "thing_labels")
        }
        theirs = name in DatasetCatalog and not isinstance(DatasetCatalog.source(name), SemSegFolder)
        if not theirs and entry["evaluator_type"] == "sem_seg":
            register_folder(name, SemSegFolder(fields["image_root"], fields["sem_seg_root"]), labels)
        else:
            metadata = MetadataCatalog.get(name)
            known = metadata.as_dict() if theirs else {}
            metadata.set(**{**metadata_of(labels), **fields, "builtin": True, **known})
