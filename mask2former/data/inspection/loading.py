"""The records of a data set, also where its reader refuses it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mask2former.data.catalog import DatasetCatalog, Metadata, MetadataCatalog
from mask2former.data.datasets.coco_json import read_json
from mask2former.data.datasets.ytvis import frame_entries
from mask2former.data.datasets.ytvis_json import track_problem
from mask2former.data.inspection.findings import Finding
from mask2former.utils.errors import UserError

# evaluator_type of the data sets whose JSON names images below one folder
_COCO_TYPES = (None, "coco", "coco_panoptic_seg", "ade20k_panoptic_seg", "mapillary_vistas_panoptic_seg")


def load_records(name: str) -> tuple[list[dict], list[Finding]]:
    """The records of data set `name`, and what its reader says against it or only warns of.

    A reader stops at the first mistake. So that the others are found, too, the files of a data set that it refuses are
    then read without any demands; category ids that the data set does not know stay as text.

    Raises:
        UserError: no such data set.
    """
    source = DatasetCatalog.source(name)
    try:
        with _warnings() as heard:
            records = list(source())
        return records, [Finding("reader's warning", name, text) for text in heard]
    except UserError as error:
        metadata, findings = MetadataCatalog.get(name), [Finding("data set", name, str(error))]
        try:
            records, more = _undemanding(metadata)
        except (UserError, KeyError, TypeError, AttributeError):  # nothing can be made of the files
            return [], findings
        return records, findings + more


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings that readers log inside the block."""
    heard, logger = [], logging.getLogger("mask2former.data")
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)


def _undemanding(metadata: Metadata) -> tuple[list[dict], list[Finding]]:
    images = metadata.get("image_root")
    coco = images and metadata.get("evaluator_type") in _COCO_TYPES
    if coco and metadata.get("panoptic_json") and not str(metadata.name).endswith("_separated"):
        return _panoptic(metadata, Path(images))
    if images and metadata.get("evaluator_type") == "ytvis" and metadata.get("json_file"):
        return _videos(metadata, Path(images))
    if coco and metadata.get("json_file"):
        return _instances(metadata, Path(images))
    if images and metadata.get("sem_seg_root"):
        return _folder(Path(images), Path(metadata.sem_seg_root)), []
    return [], []


def _instances(metadata: Metadata, root: Path) -> tuple[list[dict], list[Finding]]:
    path = metadata.json_file
    content = read_json(path)
    class_of = _numbering(metadata, content, ("thing",))
    records, findings = _images(path, content, root)
    for annotation, record in _with_records(path, content, records, findings):
        fields = {**annotation, "category_id": class_of(annotation.get("category_id"))}
        record.setdefault("annotations", []).append(fields)
    findings += _repeated(path, "annotation", content["annotations"])
    return [{"annotations": [], **record} for record in records.values()], findings


def _panoptic(metadata: Metadata, root: Path) -> tuple[list[dict], list[Finding]]:
    path = metadata.panoptic_json
    content = read_json(path)
    class_of = _numbering(metadata, content, ("stuff", "thing"))
    records, findings = _images(path, content, root)
    for annotation, record in _with_records(path, content, records, findings):
        record["pan_seg_file_name"] = str(Path(metadata.panoptic_root, annotation["file_name"]))
        record["segments_info"] = [
            {**segment, "category_id": class_of(segment.get("category_id"))} for segment in annotation["segments_info"]
        ]
    return list(records.values()), findings


def _videos(metadata: Metadata, root: Path) -> tuple[list[dict], list[Finding]]:
    """Records of videos; the lists of a track that are too long or too short count as far as there are frames."""
    path, content = metadata.json_file, read_json(metadata.json_file)
    class_of = _numbering(metadata, content, ("thing",))
    findings = [
        found for kind in ("video", "annotation") for found in _repeated(path, kind, content.get(f"{kind}s") or [])
    ]
    records = {}
    for video in content["videos"]:
        names = [str(root / name) for name in video["file_names"]]
        stated = {key: video[key] for key in ("height", "width") if video.get(key) is not None}
        fields = {"file_names": names, "video_id": video["id"], **stated, "annotations": [[] for _ in names]}
        records.setdefault(video["id"], fields)
    for track in content.get("annotations") or ():
        record = records.get(track.get("video_id"))
        place = f"{path}, annotation {track.get('id')!r}"
        if record is None:
            findings.append(Finding("record", place, f"is of video {track.get('video_id')!r}, which is not there"))
            continue
        if problem := track_problem(track, len(record["file_names"])):
            findings.append(Finding("track", place, problem))
        if isinstance(track.get("segmentations"), list):
            for objects, entry in zip(record["annotations"], frame_entries(track)):
                if entry.get("segmentation"):
                    objects.append({**entry, "category_id": class_of(entry.get("category_id"))})
    return list(records.values()), findings


def _images(path: str, content: Mapping, root: Path) -> tuple[dict[object, dict], list[Finding]]:
    """image id -> record with what the JSON says of the image."""
    records, findings = {}, _repeated(path, "image", content["images"])
    for image in content["images"]:
        if "file_name" not in image:
            findings.append(Finding("record", path, f"image {image.get('id')!r} has no file_name"))
            continue
        stated = {key: image[key] for key in ("height", "width") if key in image}
        records.setdefault(image.get("id"), {"file_name": str(root / image["file_name"]), **stated})
    return records, findings


def _numbering(metadata: Metadata, content: Mapping, kinds: tuple[str, ...]) -> Callable[[object], int | str]:
    """Category id -> class number, or text for ids that the data set does not know."""
    known: dict[int, int] = {}
    for kind in kinds:
        known.update(metadata.get(f"{kind}_dataset_id_to_contiguous_id") or {})
    if not known:
        known = {own: k for k, own in enumerate(sorted(category["id"] for category in content["categories"]))}
    return lambda own: known.get(own, f"id {own}") if isinstance(own, int) else f"id {own!r}"


def _with_records(
    path: str, content: Mapping, records: Mapping[object, dict], findings: list[Finding]
) -> Iterator[tuple[dict, dict]]:
    """The annotations, each with the record of its image; those of unknown images are added to `findings`."""
    for annotation in content["annotations"]:
        image_id = annotation.get("image_id")
        if image_id in records:
            yield annotation, records[image_id]
            continue
        what = annotation.get("id", annotation.get("file_name"))
        text = f"annotation {what!r} is of image {image_id!r}, which is not there"
        findings.append(Finding("record", path, text))


def _repeated(path: str, kind: str, entries: list[Mapping]) -> list[Finding]:
    times = Counter(entry.get("id") for entry in entries)
    return [Finding("duplicate id", path, f"{kind} id {i!r}, {n} times") for i, n in times.items() if n > 1]


def _folder(images: Path, masks: Path) -> list[dict]:
    """Images and masks of one stem, and what is without partner."""
    records = [_files(root, key) for root, key in ((images, "file_name"), (masks, "sem_seg_file_name"))]
    return [{**records[0].get(stem, {}), **records[1].get(stem, {})} for stem in sorted({*records[0], *records[1]})]


def _files(root: Path, key: str) -> dict[str, dict]:
    found = (path for path in root.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(root).with_suffix("").as_posix(): {key: str(path)} for path in found}
