"""Tracks of a video as evaluators keep them: run lengths of each frame, and arrays for the rest."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from mask2former.evaluation.encoding import EncodedMasks, encode_masks
from mask2former.evaluation.objects import ImageObjects
from mask2former.structures import TrackMasks

# N tracks, D predicted ones, G true ones, T frames, H W size of a frame


@dataclass(frozen=True)
class VideoTracks:
    """Predicted or true tracks of one video.

    video_id  as in the record
    size      (H, W)
    length    T
    masks     N tracks, each of T masks, empty in frames without the object
    columns   arrays with N rows, by name: what is known of a track beside its masks
    """

    video_id: Hashable
    size: tuple[int, int]
    length: int
    masks: list[EncodedMasks]
    columns: dict[str, np.ndarray]

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each mask, int64 [N,T]; 0 where the object is not in the frame."""
        return np.array([track.areas for track in self.masks], dtype=np.int64).reshape(len(self.masks), self.length)

    @cached_property
    def boxes(self) -> np.ndarray:
        """Around each mask, (x, y, width, height) in pixels, float64 [N,T,4]."""
        return np.array([track.boxes for track in self.masks], dtype=np.float64).reshape(*self.areas.shape, 4)

    def frame(self, t: int) -> ImageObjects:
        """The objects in frame `t`, with the columns of their tracks, but the `area` of their own masks."""
        rows = np.flatnonzero(self.areas[:, t])
        areas = self.areas[rows, t]
        masks = EncodedMasks(self.size, [self.masks[i].counts[t] for i in rows], self.boxes[rows, t], areas)
        columns = {name: values[rows] for name, values in self.columns.items()}
        return ImageObjects((self.video_id, t), masks, {**columns, "area": areas})


def encode_track(masks: Any) -> EncodedMasks:
    """A track as T encoded masks.

    Args:
        masks: [T,H,W], non-zero is inside; or TrackMasks, which are encoded already.
    """
    return track_of_rles(masks.rles(), masks.image_size) if isinstance(masks, TrackMasks) else encode_masks(masks)


def track_of_rles(rles: Sequence[dict | None], size: tuple[int, int]) -> EncodedMasks:
    """A track from the compressed RLEs of its frames, None where the object is not in the frame."""
    absent = coco_mask.frPyObjects({"size": list(size), "counts": [size[0] * size[1]]}, *size)
    return EncodedMasks.from_rles([rle or absent for rle in rles], size)


def intersections(first: VideoTracks, second: VideoTracks) -> np.ndarray:
    """Pixels that tracks of one video share in each frame, int64 [T,D,G]."""
    shared = np.zeros((first.length, len(first.masks), len(second.masks)), dtype=np.int64)
    for t, found in enumerate(shared):
        rows, columns = np.flatnonzero(first.areas[:, t]), np.flatnonzero(second.areas[:, t])
        if rows.size and columns.size:
            rles = [_rles_at(video, of, t) for video, of in ((first, rows), (second, columns))]
            # pycocotools' overlap with a crowd is intersection / area of the first
            shares = coco_mask.iou(*rles, [1] * len(columns))
            found[np.ix_(rows, columns)] = np.rint(shares * first.areas[rows, t, None])
    return shared


def iou(shared: np.ndarray, first_areas: np.ndarray, second_areas: np.ndarray) -> np.ndarray:
    """Intersection over union, 0 where both are empty.

    Args:
        shared: [...,D,G], pixels of the intersections.
        first_areas: [...,D], pixels.
        second_areas: [...,G], pixels.
    """
    union = first_areas[..., :, None] + second_areas[..., None, :] - shared
    return shared / np.maximum(union, 1)


def _rles_at(video: VideoTracks, rows: np.ndarray, t: int) -> list[dict]:
    return [{"size": list(video.size), "counts": video.masks[i].counts[t]} for i in rows]
