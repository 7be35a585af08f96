"""Ground truth of a batch, padded once and flattened over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.structures import Instances, pad_masks

# M targets of all images, T frames, H W padded image size


@dataclass
class Targets:
    """classes [M] int64, masks [M,T,H,W] bool, counts: how many belong to each image of the batch."""

    classes: Tensor
    masks: Tensor
    counts: list[int]


def image_targets(instances: Sequence[Instances], padded_size: tuple[int, int], device: torch.device) -> Targets:
    """Targets of images (T = 1) from ``gt_classes`` [N] and ``gt_masks`` [N,h,w] (a bool tensor or BitMasks)."""
    masks = [_as_tensor(i.gt_masks).to(device, torch.bool, non_blocking=True)[:, None] for i in instances]
    classes = torch.cat([i.gt_classes.to(device, torch.int64, non_blocking=True) for i in instances])
    return Targets(classes, pad_masks(masks, padded_size), [len(m) for m in masks])


def _as_tensor(masks) -> Tensor:
    return masks.tensor if hasattr(masks, "tensor") else masks
