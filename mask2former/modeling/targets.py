"""Ground truth of a batch, flattened over the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mask2former.structures import CompactMasks, Instances

# M targets of all images, N of one, T frames, S stored pixels


@dataclass
class Targets:
    """Classes and masks of the objects to predict.

    A mask is a window of pixels with the value that is inside, as in `CompactMasks`. So masks need no padding to a
    common size, and those that come compact never exist at full size.

    classes  [M] int64
    pixels   [S] bool or integer, the windows' contents
    places   [M,T,6] int64: where in ``pixels`` a window starts, its x0, y0, width and height, the value inside
    size     (H, W) of the padded images, over which points are spread
    counts   how many targets belong to each image of the batch
    """

    classes: Tensor
    pixels: Tensor
    places: Tensor
    size: tuple[int, int]
    counts: list[int]


def image_targets(instances: Sequence[Instances], padded_size: tuple[int, int], device: torch.device) -> Targets:
    """Targets of images (T = 1) from ``gt_classes`` [N] and ``gt_masks`` [N,h,w] (a bool tensor, CompactMasks, or an
    object with such a ``tensor``)."""
    classes = torch.cat([i.gt_classes.to(device, torch.int64, non_blocking=True) for i in instances])
    pixels, places, start = [], [], 0
    for masks in (i.gt_masks for i in instances):
        own_pixels, own_places = _flattened(masks)
        pixels.append(own_pixels.to(device, non_blocking=True))
        places.append(own_places + own_places.new_tensor([start, 0, 0, 0, 0, 0]))
        start += len(own_pixels)
    merged = pixels[0] if len(pixels) == 1 else torch.cat(pixels)  # a single image's masks are not copied
    places = torch.cat(places).to(device, non_blocking=True)
    return Targets(classes, merged, places, padded_size, [len(i.gt_classes) for i in instances])


def _flattened(masks) -> tuple[Tensor, Tensor]:
    """Pixels [S] and places [N,1,6] of one image's masks; places are made on the host."""
    if isinstance(masks, CompactMasks):
        return masks.pixels, masks.places.cpu()[:, None]
    masks = masks.tensor if hasattr(masks, "tensor") else masks
    return masks.to(torch.bool).reshape(-1), dense_places(len(masks), 1, *masks.shape[1:])


def dense_places(count: int, frames: int, height: int, width: int) -> Tensor:
    """Places [N,T,6] of boolean masks [N,T,h,w] that are stored whole."""
    starts = torch.arange(count * frames).view(count, frames, 1) * (height * width)
    return torch.cat([starts, torch.tensor([0, 0, width, height, 1]).expand(count, frames, 5)], 2)
