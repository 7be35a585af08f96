"""Entries of DATASETS.CUSTOM that their own function refuses, registered as far as their files allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from mask2former.data.catalog import metadata_of, register_anew
from mask2former.data.datasets.coco_json import read_json
from mask2former.data.datasets.coco_labels import labels_of_categories
from mask2former.data.datasets.custom import Refused, is_declared, register_custom, register_unused
from mask2former.data.inspection.findings import Finding
from mask2former.utils.errors import UserError

# TYPE of an entry -> evaluator_type of its data sets, where that is not COCO's of instances
_EVALUATORS = {"coco_panoptic": "coco_panoptic_seg", "ytvis": "ytvis"}


def register_declared(entries: Mapping[str, Mapping], used: Collection[str]) -> list[Finding]:
    """Register the entries of DATASETS.CUSTOM; one that cannot be is told, and does not keep the others back.

    Entries that none of the data sets `used` comes from may lack their files.

    The splits of a refused entry in one of COCO's formats, or YouTube-VIS's, get their names all the same, so that they
    can be inspected.
    """
    findings = []
    for name, entry in entries.items():
        if not is_declared(name, entry, used):
            register_unused(name, entry)
            continue
        try:
            register_custom(name, entry)
        except UserError as error:
            findings.append(Finding("data set", f"DATASETS.CUSTOM.{name}", str(error)))
            _register_refused(name, entry, str(error))
    return findings


def _register_refused(name: str, entry: Mapping, reason: str) -> None:
    panoptic = entry.get("TYPE") == "coco_panoptic"
    for split, values in (entry.get("SPLITS") or {}).items():
        try:
            paths = {key: str(Path(entry["ROOT"], value).expanduser()) for key, value in values.items()}
            categories = sorted(read_json(paths["ANNOTATIONS"])["categories"], key=lambda category: category["id"])
            named = [{**category, "name": str(category["name"])} for category in categories]
            labels = labels_of_categories(paths["ANNOTATIONS"], named, panoptic)
        except (UserError, KeyError, TypeError, AttributeError):
            continue  # nothing of this split can be read; the reason of the whole entry says so
        fields = {"image_root": paths.get("IMAGES"), "evaluator_type": _EVALUATORS.get(entry.get("TYPE"), "coco")}
        fields["panoptic_json" if panoptic else "json_file"] = paths["ANNOTATIONS"]
        if panoptic:
            fields["panoptic_root"] = paths.get("PANOPTIC", "")
        register_anew(f"{name}_{split}", Refused(reason), {**metadata_of(labels), **fields})
