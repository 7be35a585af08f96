"""One record: its image, and each kind of ground truth that it has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mask2former.data.inspection.findings import Finding, Tally
from mask2former.data.inspection.maps import inspect_panoptic, inspect_semantic
from mask2former.data.inspection.objects import inspect_objects
from mask2former.data.reading import read_image
from mask2former.utils.errors import UserError


@dataclass(frozen=True)
class Classes:
    """What class numbers mean.

    names         kind of ground truth ("panoptic", "instances", "semantic") -> class names; empty: not known
    ignore_label  id of pixels without label in semantic maps
    """

    names: Mapping[str, Sequence[str]]
    ignore_label: int


@dataclass(frozen=True)
class RecordInspection:
    """What was seen of one record.

    findings  what is wrong with it
    kinds     kind of ground truth -> class number -> (pixels, objects)
    digests   hash of an image file -> its path
    """

    findings: list[Finding]
    kinds: dict[str, dict[int, tuple[int, int]]]
    digests: dict[bytes, str]


def inspect_record(record: Mapping, classes: Classes, queries: int) -> RecordInspection:
    """Read the files of a record whole, and everything that it says of them.

    Args:
        record: see data/catalog.py; whatever it lacks or has in the wrong form becomes a finding.
        classes: of its data set.
        queries: masks that the model can predict per image.
    """
    name = record.get("file_name") if isinstance(record, Mapping) else None
    if not isinstance(name, str):
        return RecordInspection([Finding("record", str(record)[:80], 'has no "file_name"')], {}, {})
    size, digests, findings = _inspect_image(record, name)
    try:
        tallies = _inspect_truth(record, name, size, classes)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # of forms that nobody foresaw
        return RecordInspection([*findings, Finding("record", name, f"has another form: {error!r}")], {}, digests)
    for tally in tallies.values():
        findings += tally.findings
    targets = next((tally.targets for tally in tallies.values()), 0)
    if targets > queries:
        findings.append(Finding("many targets", name, f"has {targets} targets; the model predicts {queries} masks"))
    if not any(tally.classes or tally.findings for tally in tallies.values()):
        text = "has nothing to learn: no object but crowds, no labelled pixel" if tallies else "has no ground truth"
        findings.append(Finding("no labels", name, text))
    return RecordInspection(findings, {kind: tally.classes for kind, tally in tallies.items()}, digests)


def _inspect_image(record: Mapping, name: str) -> tuple[tuple[int, int] | None, dict[bytes, str], list[Finding]]:
    """(H, W) of the image, or else what the record states, or None; the hash of its file; what is wrong."""
    stated = (record["height"], record["width"]) if {"height", "width"} <= record.keys() else None
    try:
        size = read_image(name).shape[:2]
        digests = {hashlib.sha1(Path(name).read_bytes()).digest(): name}
    except UserError as error:
        return stated, {}, [Finding("image", name, str(error))]
    if stated in (None, size):
        return size, digests, []
    text = f"is {size[0]}x{size[1]} pixels (height x width, upright), but its record says {stated[0]}x{stated[1]}"
    return size, digests, [Finding("size", name, text)]


def _inspect_truth(record: Mapping, name: str, size: tuple[int, int] | None, classes: Classes) -> dict[str, Tally]:
    """A tally per kind of ground truth, the one that says most first."""
    tallies = {}
    if record.get("pan_seg_file_name"):
        segments = record.get("segments_info") or []
        tallies["panoptic"] = inspect_panoptic(record["pan_seg_file_name"], segments, size, classes.names["panoptic"])
    if record.get("annotations") is not None:
        tallies["instances"] = inspect_objects(record["annotations"], name, size, classes.names["instances"])
    if record.get("sem_seg_file_name"):
        path = record["sem_seg_file_name"]
        tallies["semantic"] = inspect_semantic(path, size, classes.names["semantic"], classes.ignore_label)
    return tallies
