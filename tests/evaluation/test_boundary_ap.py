"""Boundary AP: faster-coco-eval against the definition of Boundary IoU."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mask2former.evaluation import average_precision
from mask2former.structures import rle_encode

SIZE = 60, 80  # diagonal 100 pixels
CATEGORIES = [{"id": 1, "name": "thing"}]
IMAGES = [{"id": 1, "height": 60, "width": 80}]


def boundary(mask, distance):
    """Pixels of a mask that at most `distance` steps, diagonal ones too, lead out of it or of the image."""
    outside = F.pad(torch.from_numpy(~mask)[None].float(), [distance] * 4, value=1.0)
    return mask & (F.max_pool2d(outside, 2 * distance + 1, stride=1)[0].numpy() > 0)


def boundary_iou(a, b, distance):
    def iou(a, b):
        return (a & b).sum() / (a | b).sum()

    return min(iou(a, b), iou(boundary(a, distance), boundary(b, distance)))


def block(top, left, bottom, right):
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def ap(truth, predicted, **options):
    common = {"image_id": 1, "category_id": 1, "id": 1}
    found = {**common, "segmentation": rle_encode(predicted), "area": int(predicted.sum()), "score": 1.0}
    wanted = {**common, "segmentation": rle_encode(truth), "area": int(truth.sum()), "iscrowd": 0, "bbox": [0, 0, 1, 1]}
    return average_precision(IMAGES, CATEGORIES, [wanted], [found], **options)["AP"]


@pytest.mark.parametrize("ratio", [0.02, 0.05, 0.1])
def test_equals_the_definition(ratio):
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        top, left = rng.integers(0, 20, 2)
        bottom, right = top + rng.integers(20, 40), left + rng.integers(20, 60)
        truth, predicted = block(top, left, bottom, right), block(*np.array([top, left, bottom, right]) + shift(rng))
        if rng.random() < 0.5:
            predicted[top + 8 : top + 12, left + 8 : left + 12] = False
        iou = boundary_iou(truth, predicted, round(100 * ratio))
        passed = (np.arange(50, 100, 5) / 100 <= iou + 1e-9).mean()  # the share of thresholds 0.50:0.05:0.95
        assert ap(truth, predicted, iou_type="boundary", dilation_ratio=ratio) == pytest.approx(100 * passed)
        seen.add(passed)
    assert len(seen) > 4


def shift(rng):
    return np.array([*rng.integers(0, 3, 2), *rng.integers(-2, 1, 2)])


def test_boundaries_are_stricter_than_masks():
    truth, predicted = block(5, 5, 55, 75), block(8, 8, 52, 72)
    assert ap(truth, predicted) > 50
    assert ap(truth, predicted, iou_type="boundary") == 0
    assert ap(truth, truth, iou_type="boundary") == pytest.approx(100)


def test_unknown_kind():
    with pytest.raises(ValueError, match="'edge'"):
        average_precision([], [], [], [], "edge")
