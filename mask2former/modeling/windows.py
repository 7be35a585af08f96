"""A video of any length through a model of clips: overlapping windows, whose tracks are linked and encoded at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from mask2former.modeling.postprocess import Geometry
from mask2former.modeling.track_book import TrackBook, TrackChoice
from mask2former.modeling.tracking import TrackLinker, WindowObjects
from mask2former.structures import Track, TrackedObject, rle_encode

# W frames of a window, Q queries, N followed ones, K classes, C channels, h w stride-4 size of the padded frames,
# H W wanted size

DOUBTFUL = 0.1  # class probability in a window below which an object is taken to be out of sight
_AT_ONCE = 16  # masks that have the wanted size at a time


@dataclass
class WindowPredictions:
    """What a model says of one window.

    probability  [Q,K+1] of the classes, "no object" last
    embedding    [Q,C], alike for queries of one object
    mask_logits  [Q,W,h,w]
    padded       size of the padded frames
    """

    probability: Tensor
    embedding: Tensor
    mask_logits: Tensor
    padded: tuple[int, int]


@dataclass(frozen=True)
class WindowTracker:
    """Runs windows over a video.

    size     frames of a window; 0: the whole video is one
    overlap  frames that a window shares with the one before, on which masks are compared
    top_k    queries followed in each window, and (track, class) pairs of the result, of :meth:`run`
    """

    size: int
    overlap: int
    top_k: int

    def run(
        self,
        predict: Callable[[Sequence[Tensor]], WindowPredictions],
        frames: Iterable[Tensor],
        output: tuple[int, int],
    ) -> list[Track]:
        """The tracks of the whole video, with masks of size ``output``; arguments as for :meth:`stream`."""
        # published: a score is a class probability, so the followed queries hold every pair that could be kept
        book = TrackBook(output, TrackChoice(self.top_k))
        for _ in self.stream(predict, frames, book):
            pass
        return book.tracks()

    def stream(
        self, predict: Callable[[Sequence[Tensor]], WindowPredictions], frames: Iterable[Tensor], book: TrackBook
    ) -> Iterator[list[TrackedObject]]:
        """The objects of each frame, as soon as its window is through; ``book`` collects the tracks.

        Args:
            predict: looks at a window of frames.
            frames: [C,h,w], all of one size; no more than a window of them is held.
            book: its choice says what is followed: as many queries as there may be tracks, but none that is doubtful
                and not good enough for a track.
        """
        linker = TrackLinker()
        for window, overlap in windows(frames, self.size, self.overlap):
            found, new = predict(window), len(window) - overlap
            best = _followed(found.probability[:, :-1].amax(1), book.choice)
            logits = found.mask_logits[best]
            geometry = Geometry(found.padded, tuple(window[0].shape[-2:]), book.image_size)
            objects = WindowObjects(_unpadded(logits, geometry) > 0, found.probability[best], found.embedding[best])
            ids = linker.link(objects, overlap)
            book.score(ids, objects.probability[:, :-1], new)
            for t in range(overlap, len(window)):
                yield book.add_frame(ids, _encode(logits[:, t], geometry))
            book.close(linker.knows)


def windows(frames: Iterable[Tensor], size: int, overlap: int) -> Iterator[tuple[list[Tensor], int]]:
    """Windows of ``size`` frames (0: of all), and how many of their first frames the window before had, too.

    The last one reaches as far back as it must to be as long as the others.
    """
    rest = iter(frames)
    window = list(islice(rest, size or None))
    if window:
        yield window, 0
    while size and (new := list(islice(rest, size - overlap))):
        window = (window + new)[-size:]
        yield window, size - len(new)


def _followed(scores: Tensor, choice: TrackChoice) -> Tensor:
    """Rows of the queries that are followed, the best first, of their scores [Q]."""
    best, rows = scores.topk(min(choice.most, len(scores)))
    return rows[best >= min(choice.min_score, DOUBTFUL)]


def _unpadded(logits: Tensor, geometry: Geometry) -> Tensor:
    """[N,W,h,w] without the part that is padding alone."""
    (height, width), (padded_h, padded_w) = geometry.image, geometry.padded
    return logits[..., : -(-height * logits.shape[-2] // padded_h), : -(-width * logits.shape[-1] // padded_w)]


def _encode(logits: Tensor, geometry: Geometry) -> list[dict | None]:
    """RLE of the mask of each query in a frame, of logits [N,h,w]; None for an empty one."""
    rles: list[dict | None] = [None] * len(logits)
    # resized values are means of those given: where none is positive, the mask is empty
    candidates = (logits.flatten(1).amax(1) > 0).nonzero()[:, 0]
    for rows in candidates.split(_AT_ONCE):
        masks = geometry.to_output(logits[rows]) > 0
        inside = masks.flatten(1).any(1).tolist()
        for row, mask, full in zip(rows.tolist(), masks.cpu(), inside):
            rles[row] = rle_encode(mask) if full else None
    return rles
