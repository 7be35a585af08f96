"""Whether predicted tracks keep to their objects: identity switches, and how much they jitter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mask2former.evaluation.video_tracks import VideoTracks, iou

# D predicted tracks, G true ones, T frames

MIN_SCORE = 0.5  # of the predicted tracks that take part: those that a user would be shown
MIN_IOU = 0.5  # of a mask and the object that it is taken for (Voigtlaender et al., MOTS, CVPR 2019)


@dataclass(frozen=True)
class TrackErrors:
    """One true track beside the predicted tracks that were matched to it.

    present     frames with the object
    matched     those of them with a match
    switches    matches with another predicted track than the one before
    fragments   changes between matched and missed, as a share of the changes there could be
    position    standard deviation of the box's centre, in widths plus in heights of the true box
    shape       standard deviation of the box's scale plus of its aspect ratio, relative to the true box
    """

    present: int
    matched: int
    switches: int
    fragments: float
    position: float
    shape: float


def track_errors(predicted: VideoTracks, true: VideoTracks, shared: np.ndarray) -> list[TrackErrors]:
    """Errors of each true track of a video that is no crowd; only predicted tracks of its class can match.

    Args:
        predicted: tracks with the columns `score` and `category_id`; those below MIN_SCORE are left out.
        true: tracks with the columns `category_id` and `iscrowd`.
        shared: int64 [T,D,G], pixels of the intersections.
    """
    shown, counted = predicted.columns["score"] >= MIN_SCORE, true.columns["iscrowd"] == 0
    same_class = predicted.columns["category_id"][:, None] == true.columns["category_id"]
    overlaps = iou(shared, predicted.areas.T, true.areas.T) * (same_class & shown[:, None] & counted)
    matches = match_tracks(overlaps)
    return [
        _errors_of(matches[:, g], predicted, true.boxes[g], np.flatnonzero(true.areas[g]))
        for g in np.flatnonzero(counted)
    ]


def match_tracks(overlaps: np.ndarray) -> np.ndarray:
    """Predicted track of each true one in each frame, int64 [T,G]; -1 without one.

    As in CLEAR MOT (Bernardin and Stiefelhagen, 2008): an object keeps the track that it was last matched to
    while their IoU is at least MIN_IOU; the others are assigned so that as many as can be are matched, and among such
    assignments with the greatest sum of IoU.

    Args:
        overlaps: float [T,D,G], IoU in each frame.
    """
    length, _, num_true = overlaps.shape
    matches = np.full((length, num_true), -1)
    known = np.full(num_true, -1)  # the mapping of earlier frames, one to one
    for found, overlap in zip(matches, overlaps):
        fits = overlap >= MIN_IOU
        for g in np.flatnonzero(known >= 0):
            if fits[known[g], g]:
                found[g] = known[g]
        fits[found[found >= 0]] = False
        fits[:, found >= 0] = False
        if not fits.any():
            continue
        # one more match outweighs any sum of IoU
        rows, columns = linear_sum_assignment(fits * (overlap + num_true), maximize=True)
        for d, g in zip(rows, columns):
            if fits[d, g]:
                known[known == d] = -1
                found[g] = known[g] = d
    return matches


def _errors_of(matches: np.ndarray, predicted: VideoTracks, boxes: np.ndarray, frames: np.ndarray) -> TrackErrors:
    """Of one true track.

    Args:
        matches: [T], row of the predicted track or -1.
        predicted: the tracks.
        boxes: [T,4], (x, y, width, height) of the true masks.
        frames: those with the object.
    """
    hit = matches[frames] >= 0
    frames, tracks = frames[hit], matches[frames[hit]]
    found, wanted = predicted.boxes[tracks, frames], boxes[frames]
    centers = (found[:, :2] + found[:, 2:] / 2 - wanted[:, :2] - wanted[:, 2:] / 2) / wanted[:, 2:]
    width, height = (found[:, 2:] / wanted[:, 2:]).T
    shapes = np.stack([np.sqrt(width * height), width / height], 1)
    return TrackErrors(
        present=len(hit),
        matched=len(frames),
        switches=np.count_nonzero(np.diff(tracks)),
        fragments=np.count_nonzero(np.diff(hit)) / max(len(hit) - 1, 1),
        position=float(centers.std(0).sum()) if len(frames) else 0.0,
        shape=float(shapes.std(0).sum()) if len(frames) else 0.0,
    )


def tracking_figures(errors: Iterable[TrackErrors]) -> dict[str, float]:
    """Figures over all true tracks of a data set.

    Returns:
        IDSw, the number of identity switches, and in percent: IDSw_rate, switches per matched object in a frame;
        Recall, matched objects in frames; and the stability error of Zhang and Wang (On the Stability of Video
        Detection and Tracking, 2016), Unstable, the sum of its parts Unstable_fragments, Unstable_position and
        Unstable_shape, means over the tracks that were matched at all: 0 for masks that follow their objects exactly,
        and also for a constant offset. Boxes are those around masks. nan where there is nothing to measure.
    """
    errors = list(errors)
    present, matched, switches = (int(sum(getattr(e, n) for e in errors)) for n in ("present", "matched", "switches"))
    parts = {
        f"Unstable_{part}": _mean([getattr(e, part) for e in errors if e.matched])
        for part in ("fragments", "position", "shape")
    }
    return {
        "IDSw": float(switches),
        "IDSw_rate": 100 * switches / matched if matched else float("nan"),
        "Recall": 100 * matched / present if present else float("nan"),
        "Unstable": sum(parts.values()),
        **parts,
    }


def _mean(values: Sequence[float]) -> float:
    return 100 * float(np.mean(values)) if values else float("nan")
