"""The tracks of a video while it runs: class scores in memory, masks as run lengths in a temporary file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mask2former.structures import RleSpool, SpooledRles, Track, TrackedObject, TrackMasks

# N objects of a window, K classes, H W image size


@dataclass(frozen=True)
class TrackChoice:
    """Which (track, class) pairs of a video are its result.

    most       so many, the best by score
    min_score  none below it; and none of score 0, a class that the model never took the object for
    one_class  a track counts with its best class alone; else with any, as in the published top-k
    """

    most: int
    min_score: float = 0.0
    one_class: bool = False


class _Pair(NamedTuple):
    score: float
    track: int
    category: int
    newest: int | None  # place of the track's last mask


class _Open:
    """A track that may go on."""

    def __init__(self, num_classes: int):
        self.total = np.zeros(num_classes)
        self.frames = 0
        self.newest: int | None = None
        self.category, self.score = 0, 0.0

    def add(self, probability: np.ndarray, frames: int) -> None:
        self.total += frames * probability
        self.frames += frames
        self.category = int(self.total.argmax())
        self.score = float(self.total[self.category] / self.frames)

    def scores(self) -> np.ndarray:
        """Mean class probability over the frames of its windows, [K]."""
        return self.total / self.frames


class TrackBook:
    """Collects what a linker numbers. In memory are the tracks that may go on and the best of those that have ended.

    image_size  (H, W) of the masks
    choice      what the result is, and so what of ended tracks is kept
    keep        False: nothing is, and there is no result
    """

    def __init__(self, image_size: tuple[int, int], choice: TrackChoice, keep: bool = True):
        self.image_size, self.choice = image_size, choice
        self.length = 0
        self._spool = RleSpool() if keep else None
        self._open: dict[int, _Open] = {}
        self._ended: list[_Pair] = []

    def score(self, ids: Sequence[int], probability: Tensor, frames: int) -> None:
        """Add class probabilities [N,K] of the next ``frames`` frames."""
        for track, classes in zip(ids, probability.detach().double().cpu().numpy()):
            if track not in self._open:
                self._open[track] = _Open(len(classes))
            self._open[track].add(classes, frames)

    def add_frame(self, ids: Sequence[int], rles: Sequence[dict | None]) -> list[TrackedObject]:
        """The next frame's masks, None where an object is not in it; returns the objects that are."""
        found = []
        for track, rle in zip(ids, rles):
            if rle is not None:
                entry = self._open[track]
                if self._spool:
                    entry.newest = self._spool.append(rle, self.length, entry.newest)
                found.append(TrackedObject(track, entry.category, entry.score, rle))
        self.length += 1
        return found

    def close(self, may_return: Callable[[int], bool]) -> None:
        """End the open tracks that may not return; what can no longer be in the result is forgotten."""
        over = {track: self._open.pop(track) for track in list(self._open) if not may_return(track)}
        if self._spool:
            self._ended += self._pairs(over)
        if len(self._ended) > 2 * self.choice.most:  # not at each end, so that sorting costs little
            self._ended = self._best(self._ended)

    def tracks(self) -> list[Track]:
        """The result so far, the best first."""
        if not self._spool:
            return []
        return [
            Track(
                id=pair.track,
                category=pair.category,
                score=pair.score,
                masks=TrackMasks(SpooledRles(self._spool, pair.newest, self.image_size), self.length, self.image_size),
            )
            for pair in self._best([*self._ended, *self._pairs(self._open)])
        ]

    def _pairs(self, tracks: dict[int, _Open]) -> list[_Pair]:
        """Those that the result can have."""
        each = 1 if self.choice.one_class else self.choice.most
        pairs = []
        for track, entry in tracks.items():
            scores = entry.scores()
            for category in np.argsort(-scores, kind="stable")[:each].tolist():
                if scores[category] > 0 and scores[category] >= self.choice.min_score:
                    pairs.append(_Pair(float(scores[category]), track, category, entry.newest))
        return pairs

    def _best(self, pairs: Iterable[_Pair]) -> list[_Pair]:
        return sorted(pairs, key=attrgetter("score"), reverse=True)[: self.choice.most]
