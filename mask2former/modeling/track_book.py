"""The tracks of a video while it runs: class scores, and masks as run lengths, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mask2former.structures import Track, TrackedObject, TrackMasks

# N objects of a window, K classes, H W image size


class _Entry:
    def __init__(self, num_classes: int):
        self.total = torch.zeros(num_classes)
        self.frames = 0
        self.rles: dict[int, dict] = {}

    def scores(self) -> Tensor:
        """Mean class probability over the frames of its windows, [K]."""
        return self.total / max(self.frames, 1)


class TrackBook:
    """Collects what a linker numbers; of tracks that have ended it keeps those that can be among the best.

    image_size  (H, W) of the masks
    top_k       (track, class) pairs in the result
    """

    def __init__(self, image_size: tuple[int, int], top_k: int):
        self.image_size, self.top_k = image_size, top_k
        self.length = 0
        self._open: dict[int, _Entry] = {}
        self._ended: dict[int, _Entry] = {}

    def score(self, ids: Sequence[int], probability: Tensor, frames: int) -> None:
        """Add class probabilities [N,K] of the next ``frames`` frames."""
        for track, classes in zip(ids, probability.detach().float().cpu()):
            entry = self._open.setdefault(track, _Entry(len(classes)))
            entry.total += frames * classes
            entry.frames += frames

    def add_frame(self, ids: Sequence[int], rles: Sequence[dict | None]) -> list[TrackedObject]:
        """The next frame's masks, None where an object is not in it; returns the objects that are."""
        found = []
        for track, rle in zip(ids, rles):
            if rle is not None:
                entry = self._open[track]
                entry.rles[self.length] = rle
                score, category = entry.scores().max(0)
                found.append(TrackedObject(track, int(category), float(score), rle))
        self.length += 1
        return found

    def close(self, may_return: Callable[[int], bool]) -> None:
        """End the open tracks that may not return; what can no longer be among the ``top_k`` is forgotten."""
        over = [track for track in self._open if not may_return(track)]
        self._ended.update({track: self._open.pop(track) for track in over})
        best = {track for _, track, _ in self._best(self._ended)}
        self._ended = {track: entry for track, entry in self._ended.items() if track in best}

    def tracks(self) -> list[Track]:
        """The ``top_k`` best (track, class) pairs, the best first."""
        known = {**self._ended, **self._open}
        return [
            Track(track, category, score, TrackMasks(known[track].rles, self.length, self.image_size))
            for score, track, category in self._best(known)
        ]

    def _best(self, tracks: dict[int, _Entry]) -> list[tuple[float, int, int]]:
        """(score, track, class) of the best pairs."""
        if not tracks:
            return []
        ids, scores = list(tracks), torch.stack([entry.scores() for entry in tracks.values()])
        values, index = scores.flatten().topk(min(self.top_k, scores.numel()))
        rows, categories = index // scores.shape[1], index % scores.shape[1]
        return [(v, ids[row], category) for v, row, category in zip(*(x.tolist() for x in (values, rows, categories)))]
