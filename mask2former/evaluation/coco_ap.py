"""COCO's average precision and recall, computed by faster-coco-eval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

logger = logging.getLogger(__name__)

# what a metric's name adds -> COCO's name of the areas: small below 32 * 32 pixels, large above 96 * 96
AREAS = {"s": "small", "m": "medium", "l": "large"}

IOU_TYPES = ("segm", "bbox", "boundary")
# areas of tracks: limits of the mean area in pixels (youtubevos/cocoapi, the definition of YouTube-VIS)
TRACK_AREAS = {"small": [0, 128**2], "medium": [128**2, 256**2], "large": [256**2, 1e5**2]}

DILATION_RATIO = 0.02  # of the image's diagonal: the width of a boundary (Cheng et al., Boundary IoU, CVPR 2021)


def average_precision(
    images: Sequence[dict],
    categories: Sequence[dict],
    truth: Sequence[dict],
    predictions: Sequence[dict],
    iou_type: str = "segm",
    dilation_ratio: float = DILATION_RATIO,
) -> dict[str, float]:
    """AP and AR in percent, those of pycocotools: IoU 0.50:0.05:0.95, at most 100 predictions of a class in an image.

    Args:
        images: with `id`, an int, `height` and `width`. Predictions of one score are taken in the order of ids.
        categories: with `id` and `name`; objects of others do not count.
        truth: objects with `id` (above 0), `image_id`, `category_id`, `iscrowd`, `area`, `bbox` [x,y,w,h] and
            `segmentation`, polygons or RLE. faster-coco-eval adds keys of its own.
        predictions: objects with `id`, `image_id`, `category_id`, `score`, `area` and the `segmentation` (RLE) or, for
            boxes, the `bbox`. Predictions outside a range of areas that match nothing do not count there.
        iou_type: "segm" (masks), "bbox", or "boundary": the smaller one of mask IoU and Boundary IoU.
        dilation_ratio: width of the boundary, as a share of the image's diagonal.

    Returns:
        AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl and AP-<name> for each category; nan where there
        is no ground truth.
    """
    if iou_type not in IOU_TYPES:
        raise ValueError(f"iou_type is {iou_type!r}; expected one of {IOU_TYPES}")
    boundary = {"boundary_dilation_ratio": dilation_ratio} if iou_type == "boundary" else {}
    evaluation = COCOeval_faster(
        _indexed(images, categories, truth),
        _indexed(images, categories, predictions),
        iou_type,
        print_function=logger.debug,
        **boundary,
    )
    return _evaluated(evaluation, categories)


def track_precision(
    videos: Sequence[dict],
    categories: Sequence[dict],
    truth: Sequence[dict],
    predictions: Sequence[dict],
    overlap: Callable[[Sequence[int], Sequence[int]], np.ndarray],
) -> dict[str, float]:
    """AP and AR of tracks in percent, as YouTube-VIS defines them (Yang et al., Video Instance Segmentation, ICCV
    2019, and youtubevos/cocoapi): COCO's figures, with a video for an image and a track for an object.

    Crowds differ from COCO's: the IoU with one is that of any track.

    Args:
        videos: with `id`, an int.
        categories: with `id` and `name`; tracks of others do not count.
        truth: tracks with `id` (above 0), `image_id` (of the video), `category_id`, `iscrowd` and `area`, the mean over
            the frames where the object is.
        predictions: tracks with `id`, `image_id`, `category_id`, `score` and `area`.
        overlap: function of the ids of D predicted and G true tracks of one video that gives their IoU, float64 [D,G].

    Returns:
        As `average_precision`, small below 128 * 128 pixels and large above 256 * 256.
    """
    found = _indexed(videos, categories, truth), _indexed(videos, categories, predictions)
    return _evaluated(_GivenOverlaps(*found, overlap), categories)


class _GivenOverlaps(COCOeval_faster):
    """COCO's matching and accumulation over IoUs that the caller computes."""

    def __init__(self, truth: COCO, predictions: COCO, overlap: Callable[[Sequence[int], Sequence[int]], np.ndarray]):
        # "bbox": nothing is prepared for the computation of IoU that is replaced here
        super().__init__(truth, predictions, "bbox", TRACK_AREAS, print_function=logger.debug)
        self.overlap = overlap

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray:
        true, predicted = (
            data.get_instances([imgId], [catId], True)[0][0] for data in (self.gt_dataset, self.dt_dataset)
        )
        # the best by score, in the order in which they are matched
        predicted = sorted(predicted, key=lambda track: -track["score"])[: self.params.maxDets[-1]]
        return self.overlap([track["id"] for track in predicted], [track["id"] for track in true])


def _evaluated(evaluation: COCOeval_faster, categories: Sequence[dict]) -> dict[str, float]:
    evaluation.evaluate()
    evaluation.accumulate()
    names = {category["id"]: category["name"] for category in categories}
    ordered = [names[i] for i in evaluation.params.catIds]
    # precision: IoU thresholds, recalls, classes, areas, numbers of predictions; recall has no second axis
    return _metrics(evaluation.eval["precision"], evaluation.eval["recall"], evaluation.params, ordered)


def _indexed(images: Sequence[dict], categories: Sequence[dict], annotations: Sequence[dict]) -> COCO:
    coco = COCO()
    coco.dataset = {"images": list(images), "categories": list(categories), "annotations": list(annotations)}
    coco.createIndex()
    return coco


def _metrics(precision: np.ndarray, recall: np.ndarray, params, names: list[str]) -> dict[str, float]:
    thresholds = {name: int(np.argmin(np.abs(params.iouThrs - iou))) for name, iou in (("50", 0.5), ("75", 0.75))}
    areas = {name: params.areaRngLbl.index(label) for name, label in AREAS.items()}
    return {
        "AP": _mean(precision[..., 0, -1]),
        **{f"AP{name}": _mean(precision[i, ..., 0, -1]) for name, i in thresholds.items()},
        **{f"AP{name}": _mean(precision[..., i, -1]) for name, i in areas.items()},
        **{f"AR{most}": _mean(recall[..., 0, i]) for i, most in enumerate(params.maxDets)},
        **{f"AR{name}": _mean(recall[..., i, -1]) for name, i in areas.items()},
        **{f"AP-{name}": _mean(precision[:, :, k, 0, -1]) for k, name in enumerate(names)},
    }


def _mean(values: np.ndarray) -> float:
    """In percent; -1 stands for no ground truth."""
    values = values[values > -1]
    return 100 * float(values.mean()) if values.size else float("nan")
