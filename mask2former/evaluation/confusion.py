"""Counting pixels by true and predicted class, and what follows from the counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# K classes, H W image size; confusion[t, p] = number of pixels of class t that were predicted as p


def count_pixels(truth: np.ndarray, predicted: np.ndarray, num_classes: int, ignore_label: int) -> np.ndarray:
    """Confusion matrix of one image, int64 [K,K]; pixels whose truth is `ignore_label` are left out.

    Args:
        truth: integers [H,W], in [0, K) or `ignore_label`.
        predicted: integers [H,W] in [0, K).
        num_classes: K.
        ignore_label: the value of pixels without ground truth.

    Raises:
        ValueError: a counted value lies outside [0, K).
    """
    counted = truth != ignore_label
    true_class = truth[counted].astype(np.int64)
    predicted_class = predicted[counted].astype(np.int64)
    for what, values in (("ground truth", true_class), ("prediction", predicted_class)):
        if values.size and (values.min() < 0 or values.max() >= num_classes):
            wrong = np.unique(values[(values < 0) | (values >= num_classes)])[:5].tolist()
            raise ValueError(f"{what} has the values {wrong} outside [0, {num_classes})")
    pairs = np.bincount(true_class * num_classes + predicted_class, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def semantic_metrics(confusion: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """mIoU, fwIoU, mACC, pACC and each class's IoU-<name> and ACC-<name>, in percent, named as in detectron2.

    The means run over the classes that occur in the ground truth; fwIoU weighs these by their share of its pixels.
    A class that does not occur has nan for both of its figures, and so has everything where nothing was counted.

    Args:
        confusion: int64 [K,K], rows are true classes.
        names: K class names.
    """
    hit = np.diagonal(confusion).astype(np.float64)
    true_pixels = confusion.sum(1).astype(np.float64)
    predicted_pixels = confusion.sum(0).astype(np.float64)
    there = true_pixels > 0
    accuracy = np.full(len(names), np.nan)
    iou = np.full(len(names), np.nan)
    accuracy[there] = hit[there] / true_pixels[there]
    iou[there] = hit[there] / (true_pixels + predicted_pixels - hit)[there]
    if there.any():
        weights = true_pixels[there] / true_pixels.sum()
        means = (iou[there].mean(), (iou[there] * weights).sum(), accuracy[there].mean(), hit.sum() / true_pixels.sum())
    else:
        means = (np.nan,) * 4
    metrics = dict(zip(("mIoU", "fwIoU", "mACC", "pACC"), means, strict=True))
    for name, class_iou, class_accuracy in zip(names, iou, accuracy, strict=True):
        metrics[f"IoU-{name}"] = class_iou
        metrics[f"ACC-{name}"] = class_accuracy
    return {key: 100 * float(value) for key, value in metrics.items()}
