"""Drawn videos with imperfect tracks, as a YouTube-VIS file, records and outputs of a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from mask2former.structures import LabelSet, rle_encode

LABELS = LabelSet(("cat", "grass", "dog", "bird"), thing_ids=(0, 2, 3), dataset_ids=(7, 1, 3, 12))
SIZE = (290, 320)  # room for tracks of small, medium and large areas


@dataclass
class DrawnVideos:
    """A small data set; class 1 is stuff, the category ids are not in the order of the classes.

    masks      id of a true track -> bool [T,H,W]
    outputs    one for each record
    """

    file: dict = field(default_factory=lambda: {"videos": [], "annotations": [], "categories": []})
    records: list[dict] = field(default_factory=list)
    masks: dict[int, np.ndarray] = field(default_factory=dict)
    outputs: list[dict] = field(default_factory=list)

    def perfect(self) -> list[dict]:
        """Outputs that repeat the ground truth, crowds left out."""
        outputs = []
        for record in self.records:
            own = [a for a in self.file["annotations"] if a["video_id"] == record["video_id"] and not a["iscrowd"]]
            tracks = [self.masks[track["id"]] for track in own]
            labels = [LABELS.dataset_ids.index(track["category_id"]) for track in own]
            outputs.append(tracks_output(tracks, labels, [1.0] * len(own)))
        return outputs


def tracks_output(tracks: list[np.ndarray], labels: list[int], scores: list[float]) -> dict:
    masks = [torch.from_numpy(track) for track in tracks]
    return {"image_size": SIZE, "pred_scores": scores, "pred_labels": labels, "pred_masks": masks}


def moving_box(rng: np.random.Generator, length: int) -> np.ndarray:
    """bool [T,H,W]: a box that moves, and is not in some frames."""
    size = np.exp(rng.uniform(2.5, 6.0, 2)).clip(max=285)
    corners = rng.uniform(0, 1, 2) * (SIZE - size).clip(min=0) + np.arange(length)[:, None] * rng.uniform(-8, 8, 2)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    track = np.stack([(y >= r) & (y < r + size[0]) & (x >= c) & (x < c + size[1]) for r, c in corners])
    return track & (rng.random(length) < 0.8)[:, None, None]


def draw_videos(seed: int = 0) -> DrawnVideos:
    """Six videos: one without tracks, one with 110 predictions, missing frames, crowds, tied scores, duplicates."""
    rng = np.random.default_rng(seed)
    data = DrawnVideos()
    data.file["categories"] = [{"id": LABELS.dataset_ids[k], "name": LABELS.names[k]} for k in LABELS.thing_ids]
    for video_id in (31, 5, 8, 40, 2, 77):  # not in order
        length = int(rng.integers(1, 6))
        names = [f"{video_id}/{t}.jpg" for t in range(length)]
        data.file["videos"].append({"id": video_id, "file_names": names, "height": SIZE[0], "width": SIZE[1]})
        record = {"video_id": video_id, "file_names": names, "length": length, "height": SIZE[0], "width": SIZE[1]}
        record["annotations"], predicted = [[] for _ in names], []
        for _ in range(0 if video_id == 8 else 6):
            k = 3 if video_id == 40 else int(rng.choice(LABELS.thing_ids))
            track = moving_box(rng, length)
            add_track(data, record, k, track, crowd=rng.random() < 0.2)
            for _ in range(int(rng.integers(0, 4))):
                moved = np.roll(track, tuple(rng.integers(-6, 7, 2)), (1, 2))
                predicted.append((moved, k if rng.random() < 0.8 else int(rng.integers(4))))
        predicted += [(moving_box(rng, length), 3) for _ in range(110 if video_id == 40 else 2)]
        predicted.append((np.zeros((length, *SIZE), bool), 0))
        scores = (rng.integers(0, 9, len(predicted)) / 8).tolist()
        data.records.append(record)
        data.outputs.append(tracks_output([m for m, _ in predicted], [k for _, k in predicted], scores))
    return data


def add_track(data: DrawnVideos, record: dict, label: int, track: np.ndarray, crowd: bool) -> None:
    """A true track, to the file and to the record."""
    seen = track.any((1, 2))
    rles = [rle_encode(mask) if present else None for mask, present in zip(track, seen)]
    areas = [int(mask.sum()) if present else None for mask, present in zip(track, seen)]
    described = {"id": len(data.masks) + 1, "category_id": LABELS.dataset_ids[label], "iscrowd": int(crowd)}
    in_file = {**described, "video_id": record["video_id"], "segmentations": rles, "areas": areas}
    data.file["annotations"].append(in_file)
    data.masks[described["id"]] = track
    for objects, rle, area in zip(record["annotations"], rles, areas):
        if rle:
            objects.append({**described, "category_id": label, "segmentation": rle, "area": area})
