"""Annotation -> labels and masks of the objects to predict: the one place where targets are made."""

from __future__ import annotations

import torch

from mask2former.structures import Instances

# H, W: size in pixels; N: classes present in the image


def semantic_instances(sem_seg: torch.Tensor, ignore_label: int) -> Instances:
    """One mask for each class that is present; pixels of `ignore_label` belong to none.

    Args:
        sem_seg: integer [H,W], class ids from 0.
        ignore_label: id of pixels without label.

    Returns:
        Instances with gt_classes int64 [N] in ascending order and gt_masks bool [N,H,W]; N may be 0.
    """
    present = torch.bincount(sem_seg.reshape(-1)) > 0  # a histogram; torch.unique would sort all pixels
    if 0 <= ignore_label < len(present):
        present[ignore_label] = False
    classes = present.nonzero().flatten()
    masks = sem_seg[None] == classes.to(sem_seg.dtype)[:, None, None]
    return Instances(tuple(sem_seg.shape), gt_classes=classes, gt_masks=masks)
