"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019, sec. 4): matching one image, summing over many.

Two maps of segment ids are compared by counting pixels for each pair of a true and a predicted segment. Pixels are
never sorted: stretches of equal pairs are counted as one, and ids find their place in a table.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from mask2former.structures.labels import LabelSet

# H, W image size; K classes; N true and P predicted segments of an image; R stretches of pixels with equal ids

VOID = 0  # id of pixels without a segment
ID_LIMIT = 1 << 24  # ids are below: the three bytes of a PNG's pixel

_FIGURES = ("PQ", "SQ", "RQ")
_thread = threading.local()


class PanopticQuality:
    """The parts of panoptic quality per class, summed over images.

    iou  float64 [K], summed IoU of the matched pairs
    tp   int64 [K], matched pairs; fp: predicted segments without a match; fn: true segments without a match
    """

    def __init__(self, num_classes: int):
        self.iou = np.zeros(num_classes)
        self.tp, self.fp, self.fn = (np.zeros(num_classes, np.int64) for _ in range(3))

    def add(
        self,
        truth_ids: np.ndarray,
        truth_segments: Sequence[dict],
        predicted_ids: np.ndarray,
        predicted_segments: Sequence[dict],
    ) -> None:
        """Count one image, described as for :func:`pq_stats`."""
        self.merge(pq_stats(truth_ids, truth_segments, predicted_ids, predicted_segments, len(self.iou)))

    def merge(self, other: PanopticQuality) -> None:
        """Add the sums of `other`, which has the same classes."""
        self.iou += other.iou
        self.tp += other.tp
        self.fp += other.fp
        self.fn += other.fn

    def results(self, labels: LabelSet) -> dict[str, float]:
        """PQ, SQ and RQ in percent: means over all classes, things ("PQ_th") and stuff ("PQ_st"), and "PQ-<class>".

        The means run over the classes that have a segment which counts, true or predicted. Classes without one are
        nan, and so is the mean of no class.

        Args:
            labels: names of the K classes, and which of them are things.
        """
        segments = self.tp + 0.5 * self.fp + 0.5 * self.fn
        there = segments > 0
        sq, rq = np.full((2, len(there)), np.nan)
        sq[there] = self.iou[there] / np.maximum(self.tp[there], 1)
        rq[there] = self.tp[there] / segments[there]
        figures = 100 * np.stack([sq * rq, sq, rq])  # [3,K]
        metrics = {}
        for suffix, group in (("", range(len(there))), ("_th", labels.thing_ids), ("_st", labels.stuff_ids)):
            counted = [k for k in group if there[k]]
            means = figures[:, counted].mean(1) if counted else (np.nan,) * 3
            metrics |= {f"{figure}{suffix}": float(mean) for figure, mean in zip(_FIGURES, means, strict=True)}
        for name, values in zip(labels.names, figures.T, strict=True):
            metrics |= {f"{figure}-{name}": float(value) for figure, value in zip(_FIGURES, values, strict=True)}
        return metrics


def pq_stats(
    truth_ids: np.ndarray,
    truth_segments: Sequence[dict],
    predicted_ids: np.ndarray,
    predicted_segments: Sequence[dict],
    num_classes: int,
) -> PanopticQuality:
    """Match the segments of one image.

    A true and a predicted segment of one class match when their IoU is above 0.5, where pixels that are void in the
    truth are left out of the union. A crowd region matches nothing and is not missed. A predicted segment without a
    match does not count when more than half of it lies on void and on crowd regions of its class.

    Args:
        truth_ids: integers [H,W], segment ids in [1, 2^24) and 0 for void.
        truth_segments: N dicts with `id`, `category_id` in [0, K) and, where they are crowd regions, `iscrowd` 1.
        predicted_ids: integers [H,W] likewise; 0 where nothing is predicted.
        predicted_segments: P dicts with `id` and `category_id`.
        num_classes: K.

    Raises:
        ValueError: the maps differ in size, a map has an id that is not listed, a list repeats an id or has a
            category out of range, or a predicted segment has no pixel.
    """
    if truth_ids.shape != predicted_ids.shape:
        (th, tw), (ph, pw) = truth_ids.shape, predicted_ids.shape
        raise ValueError(f"the ground truth is {tw}x{th} pixels, the prediction {pw}x{ph} (width x height)")
    true_class = _classes(truth_segments, num_classes, "ground truth")
    predicted_class = _classes(predicted_segments, num_classes, "prediction")
    crowd = np.array([bool(s.get("iscrowd", 0)) for s in truth_segments], dtype=bool)
    pixels = _pixels_by_pair(truth_ids, truth_segments, predicted_ids, predicted_segments)  # [1+N,1+P], 0 is void
    on_void, both = pixels[0, 1:], pixels[1:, 1:]
    true_area, predicted_area = pixels[1:].sum(1), pixels[:, 1:].sum(0)
    _check_visible(predicted_segments, predicted_area)

    union = true_area[:, None] + predicted_area - both - on_void
    same_class = true_class[:, None] == predicted_class
    matched = same_class & ~crowd[:, None] & (2 * both > union)  # in whole numbers: IoU > 0.5
    true, predicted = matched.nonzero()
    missed = ~matched.any(1) & ~crowd
    on_crowd = np.where(same_class & crowd[:, None], both, 0).sum(0)
    false = ~matched.any(0) & (2 * (on_void + on_crowd) <= predicted_area)

    stats = PanopticQuality(num_classes)
    iou = both[true, predicted] / union[true, predicted]
    stats.iou += np.bincount(true_class[true], weights=iou, minlength=num_classes)
    stats.tp += np.bincount(true_class[true], minlength=num_classes)
    stats.fn += np.bincount(true_class[missed], minlength=num_classes)
    stats.fp += np.bincount(predicted_class[false], minlength=num_classes)
    return stats


def _check_visible(segments: Sequence[dict], areas: np.ndarray) -> None:
    """Raise ValueError unless every predicted segment has pixels."""
    if not areas.all():
        absent = [s["id"] for s, area in zip(segments, areas, strict=True) if not area][:5]
        raise ValueError(f"the predicted segments {absent} have no pixel in the map")


def _classes(segments: Sequence[dict], num_classes: int, what: str) -> np.ndarray:
    """int64 [N]."""
    classes = np.array([s["category_id"] for s in segments], dtype=np.int64)
    if wrong := sorted({int(k) for k in classes if not 0 <= k < num_classes})[:5]:
        raise ValueError(f"the {what} has segments of the categories {wrong} outside [0, {num_classes})")
    return classes


def _pixels_by_pair(
    truth_ids: np.ndarray, truth_segments: Sequence[dict], predicted_ids: np.ndarray, predicted_segments: Sequence[dict]
) -> np.ndarray:
    """Pixels of each true (or void, first) and predicted (or none, first) segment in common, int64 [1+N,1+P]."""
    truth, predicted, lengths = _stretches(truth_ids.reshape(-1), predicted_ids.reshape(-1))
    row = segment_places(truth, truth_segments, "ground truth")
    column = segment_places(predicted, predicted_segments, "prediction")
    rows, columns = 1 + len(truth_segments), 1 + len(predicted_segments)
    counts = np.bincount(row * columns + column, weights=lengths, minlength=rows * columns)
    return counts.astype(np.int64).reshape(rows, columns)


def _stretches(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Ids of the stretches of pixels that agree with the one before: ([R], [R], lengths [R], or None where all are 1).

    Maps have a few hundred pixels per border pixel, so all that follows works on few numbers. Where they are mere
    noise the pixels are returned as they are.
    """
    starts = np.ones(truth.size, dtype=bool)
    starts[1:] = truth[1:] != truth[:-1]
    starts[1:] |= predicted[1:] != predicted[:-1]
    if 4 * np.count_nonzero(starts) > truth.size:
        return truth, predicted, None
    first = starts.nonzero()[0]
    return truth[first], predicted[first], np.diff(first, append=truth.size)


def segment_places(ids: np.ndarray, segments: Sequence[dict], what: str) -> np.ndarray:
    """1 + place in `segments` of each segment id, 0 for void; int64 in the shape of `ids`.

    Args:
        ids: integers of any shape.
        segments: dicts with `id`.
        what: a name of both for error messages.

    Raises:
        ValueError: an id is not listed, listed twice or out of range.
    """
    listed = [VOID, *(s["id"] for s in segments)]
    if len(set(listed)) < len(listed):
        raise ValueError(f"the {what} lists a segment id twice, or {VOID}, which stands for no segment")
    low, high = min([ids.min(), *listed]), max([ids.max(), *listed])
    if low < 0 or high >= ID_LIMIT:
        raise ValueError(f"the {what} has ids from {low} to {high}, expected 0 to {ID_LIMIT - 1}")
    if not hasattr(_thread, "table"):  # 64 MB of addresses per thread, of which one page per id is ever touched
        _thread.table = np.zeros(ID_LIMIT, dtype=np.int32)  # between calls all 0: not listed
    try:
        _thread.table[listed] = np.arange(1, 1 + len(listed))
        places = _thread.table[ids]
    finally:
        _thread.table[listed] = 0
    if not places.all():
        unknown = np.unique(ids[places == 0])[:5].tolist()
        raise ValueError(f"the {what} has pixels of the ids {unknown}, which its segments_info does not list")
    return places.astype(np.int64) - 1
