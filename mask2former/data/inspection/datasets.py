"""All records of a data set, looked through in parallel and summed up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from mask2former.data.catalog import MetadataCatalog, labels_of
from mask2former.data.datasets.video_records import is_video
from mask2former.data.inspection.findings import Finding
from mask2former.data.inspection.loading import load_records
from mask2former.data.inspection.records import Classes, RecordInspection, inspect_record
from mask2former.data.inspection.videos import inspect_video
from mask2former.utils.errors import UserError

_CHUNK = 16  # most records that a worker process is handed at once


class Inspection:
    """What was seen of a data set.

    name      of the data set
    records   its records, those of a refused data set as far as they could be read
    findings  what is wrong
    """

    def __init__(self, name: str, records: Sequence[Mapping], classes: Classes, findings: Sequence[Finding]):
        self.name, self.records, self.classes = name, records, classes
        self.findings = [*findings]
        self.images_of: dict[bytes, list[str]] = defaultdict(list)  # hash of an image file -> its paths
        # kind of ground truth -> records, pixels and objects per class, int64 [K,3]
        self._counts: dict[str, np.ndarray] = {}

    def add(self, seen: RecordInspection) -> None:
        """Take in one record."""
        self.findings += seen.findings
        for digest, path in seen.digests.items():
            self.images_of[digest].append(path)
        for kind, classes in seen.kinds.items():
            table = self._counts.setdefault(kind, np.zeros((len(self.classes.names[kind]), 3), np.int64))
            for k, (pixels, objects) in classes.items():
                if k < len(table):
                    table[k] += (1, pixels, objects)

    def finish(self) -> None:
        """Add what only the whole data set can tell: repeated images and classes that never occur."""
        for paths in self.images_of.values():
            if len(set(paths)) > 1:
                self.findings.append(Finding("repeated image", paths[0], f"is the same file as {paths[1]}"))
        if not self.records and not any(finding.is_error for finding in self.findings):
            self.findings.append(Finding("data set", self.name, "has no images with ground truth"))
        kind = next(iter(self._counts), None)  # the kind of ground truth that says most
        if kind and self._counts[kind].any():
            names = self.classes.names[kind]
            for k in np.flatnonzero(self._counts[kind][:, 0] == 0):
                self.findings.append(
                    Finding("unused class", self.name, f"{names[k]!r} ({k}) is in no {self.unit[:-1]}")
                )

    def frequencies(self) -> dict[str, list[dict]]:
        """Per kind of ground truth, and class: its name, the images and objects that have it, its share of all pixels.

        Of videos, "images" are the videos and "objects" the tracks. Regions of semantic maps count as one object per
        image; crowds are left out.
        """
        tables = {}
        for kind, table in self._counts.items():
            shares = table[:, 1] / max(table[:, 1].sum(), 1)
            tables[kind] = [
                {"name": name, "pixel_share": float(share), "images": int(images), "objects": int(objects)}
                for name, share, (images, _, objects) in zip(self.classes.names[kind], shares, table, strict=True)
            ]
        return tables

    @property
    def unit(self) -> str:
        """What a record is of, "images" or "videos"."""
        return "videos" if self.records and is_video(self.records[0]) else "images"

    @property
    def is_unlabelled(self) -> bool:
        """Whether no image has anything to learn."""
        return not any(table.any() for table in self._counts.values())

    def kinds(self) -> dict[str, list[Finding]]:
        """The findings by their kind, errors first, the most frequent first."""
        times = Counter(finding.kind for finding in self.findings)
        kinds: dict[str, list[Finding]] = {}
        for finding in sorted(self.findings, key=lambda f: (not f.is_error, -times[f.kind], f.kind)):
            kinds.setdefault(finding.kind, []).append(finding)
        return kinds


def inspect_dataset(name: str, queries: int, workers: int) -> Inspection:
    """Look through data set `name`, under a progress bar.

    Args:
        name: of a registered data set.
        queries: masks that the model can predict per image.
        workers: processes; 1: this one.

    Raises:
        UserError: no such data set.
    """
    records, findings = load_records(name)
    classes, more = _classes(name)
    inspection = Inspection(name, records, classes, findings + more)
    inspect = partial(_inspect, classes=classes, queries=queries)
    unit = inspection.unit[:-1]
    for seen in tqdm(_map(inspect, records, workers), desc=name, total=len(records), unit=unit):
        inspection.add(seen)
    inspection.finish()
    return inspection


def _inspect(record: Mapping, classes: Classes, queries: int) -> RecordInspection:
    video = isinstance(record, Mapping) and is_video(record)
    return (inspect_video if video else inspect_record)(record, classes, queries)


def shared_images(inspections: Sequence[Inspection]) -> list[Finding]:
    """Image files with the same content in two data sets."""
    found = []
    for i, first in enumerate(inspections):
        for second in inspections[i + 1 :]:
            common = [digest for digest in first.images_of if digest in second.images_of]
            found += [
                Finding(
                    "shared image", first.images_of[d][0], f"({first.name}) is {second.images_of[d][0]} ({second.name})"
                )
                for d in common
            ]
    return found


def _classes(name: str) -> tuple[Classes, list[Finding]]:
    """The classes of a data set, and what is wrong with them."""
    metadata = MetadataCatalog.get(name)
    try:
        labels = labels_of(metadata)
    except UserError as error:
        return Classes(dict.fromkeys(("panoptic", "instances", "semantic"), ()), 255), [
            Finding("data set", name, str(error))
        ]
    # sets that keep things and stuff apart number the classes of their objects and of their maps separately
    objects = metadata.get("thing_classes") or labels.names
    names = {"panoptic": labels.names, "instances": tuple(objects), "semantic": labels.names}
    return Classes(names, labels.ignore_label), []


def _map(inspect, records: Sequence[Mapping], workers: int) -> Iterator[RecordInspection]:
    """`inspect` of each record, in order."""
    if workers <= 1 or len(records) < 2:
        yield from map(inspect, records)
        return
    with ProcessPoolExecutor(min(workers, len(records))) as pool:
        try:
            yield from pool.map(inspect, records, chunksize=max(1, min(_CHUNK, len(records) // (4 * workers))))
        except BaseException:  # an interrupt, too, must not wait for records that nobody has begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
