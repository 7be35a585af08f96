"""One record of a video: its frames, and the tracks of its objects."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping

from mask2former.data.datasets.video_records import frame_records
from mask2former.data.inspection.findings import Finding
from mask2former.data.inspection.records import Classes, RecordInspection, inspect_record
from mask2former.data.reading import read_size
from mask2former.utils.errors import UserError


def inspect_video(record: Mapping, classes: Classes, queries: int) -> RecordInspection:
    """As `inspect_record`, for a video: pixels are counted in all frames, and an object is a track.

    Copies of a frame within a video are no findings: what does not move looks the same again.
    """
    name, findings, digests = f"video {record.get('video_id')!r}", [], {}
    record = _sized(record)
    pixels: dict[int, int] = defaultdict(int)
    for frame in frame_records(record):
        seen = inspect_record(frame, classes, queries=sys.maxsize)
        findings += [finding for finding in seen.findings if finding.kind != "no labels"]  # asked of the whole video
        digests.update(seen.digests)
        for k, (count, _) in seen.kinds.get("instances", {}).items():
            pixels[k] += count
    tracks: dict[object, set] = defaultdict(set)  # id -> its classes
    for frame in record.get("annotations") or ():
        for annotation in frame:
            if not annotation.get("iscrowd", 0):
                tracks[annotation.get("id")].add(annotation.get("category_id"))
    place = f"{name} ({record['file_names'][0]})"
    for track, found in tracks.items():
        if len(found) > 1:
            findings.append(Finding("track", place, f"track {track!r} has the classes {sorted(map(str, found))}"))
    if len(tracks) > queries:
        findings.append(Finding("many targets", place, f"has {len(tracks)} tracks; the model predicts {queries} masks"))
    if not pixels and not findings:
        text = "has nothing to learn: no object but crowds" if "annotations" in record else "has no ground truth"
        findings.append(Finding("no labels", place, text))
    counted = {k: (count, sum(k in found for found in tracks.values())) for k, count in pixels.items()}
    return RecordInspection(findings, {"instances": counted} if "annotations" in record else {}, digests)


def _sized(record: Mapping) -> Mapping:
    """A record that states no size with that of its first frame, which the others must have, too."""
    if {"height", "width"} <= record.keys():
        return record
    try:
        height, width = read_size(record["file_names"][0])
    except UserError:  # a finding of that frame
        return record
    return {**record, "height": height, "width": width}
