"""Objects that are followed through a video, in memory that a frame's pixels do not count for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mask2former.structures.masks import rle_decode

# T frames, H W image size


@dataclass(frozen=True)
class TrackedObject:
    """One object in one frame.

    id        number of its track, the same in all frames of the video
    category  contiguous class number
    score     0 to 1, of the track so far; 1 for segments of models that give none
    rle       its mask as COCO RLE
    isthing   False: a stuff segment, of which a frame has one per class
    """

    id: int
    category: int
    score: float
    rle: dict
    isthing: bool = True

    @property
    def mask(self) -> np.ndarray:
        """bool [H,W], decoded anew each time"""
        return rle_decode(self.rle)


class TrackMasks:
    """The masks [T,H,W] of one track as run lengths: ``track[t]`` is bool [H,W], ``len(track)`` is T.

    rles        COCO RLE by frame number, in memory or `SpooledRles`; frames without the object have none
    length      T
    image_size  (H, W)
    """

    def __init__(self, rles: Mapping[int, dict], length: int, image_size: tuple[int, int]):
        self._rles, self._length, self.image_size = rles, length, image_size

    def rles(self) -> list[dict | None]:
        """T COCO RLEs, None where the object is not in the frame."""
        return [self._rles.get(t) for t in range(self._length)]

    def rle(self, t: int) -> dict | None:
        """COCO RLE of frame ``t``, None where the object is not in it."""
        return self._rles.get(t)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, t: int) -> np.ndarray:
        if not -self._length <= t < self._length:
            raise IndexError(f"frame {t} of a track of {self._length} frames")
        rle = self._rles.get(t % self._length)
        return np.zeros(self.image_size, bool) if rle is None else rle_decode(rle)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[t] for t in range(self._length))


@dataclass(frozen=True)
class Track:
    """An object of a video: the number of its track, contiguous class number, score from 0 to 1, masks [T,H,W]."""

    id: int
    category: int
    score: float
    masks: TrackMasks
