"""Ground truth of a batch, flattened over its images or clips."""

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
    counts   how many targets belong to each image or clip of the batch
    """

    classes: Tensor
    pixels: Tensor
    places: Tensor
    size: tuple[int, int]
    counts: list[int]


def image_targets(instances: Sequence[Instances], padded_size: tuple[int, int], device: torch.device) -> Targets:
    """Targets of images (T = 1) from ``gt_classes`` [N] and ``gt_masks`` [N,h,w] (a bool tensor, CompactMasks, or an
    object with such a ``tensor``)."""
    return _merged([(i.gt_classes, [i.gt_masks]) for i in instances], padded_size, device)


def clip_targets(clips: Sequence[Sequence[Instances]], padded_size: tuple[int, int], device: torch.device) -> Targets:
    """Targets of clips from T Instances each, as of images, with ``gt_ids`` [N], -1 where an object is not in a frame.

    The T Instances of a clip hold the same N objects in the same order. Objects that are in no frame are left out.
    """
    return _merged([_in_sight(frames) for frames in clips], padded_size, device)


def _in_sight(frames: Sequence[Instances]) -> tuple[Tensor, list]:
    """Classes [n] of the objects that are in some frame, and their masks in each of the T frames."""
    if len({len(frame.gt_ids) for frame in frames}) != 1:
        raise ValueError(
            f"the frames of a clip have {[len(frame.gt_ids) for frame in frames]} instances: expected the same objects "
            "in the same order in all, with gt_ids -1 where one is not in a frame."
        )
    seen = torch.stack([frame.gt_ids >= 0 for frame in frames], 1)  # [N,T]
    kept = seen.any(1).nonzero().flatten()
    # a mapper may give absent objects a placeholder for a class
    classes = torch.stack([frame.gt_classes for frame in frames], 1)[kept, seen[kept].int().argmax(1)]
    return classes, [frame.gt_masks[kept] for frame in frames]


def _merged(
    annotated: Sequence[tuple[Tensor, Sequence]], padded_size: tuple[int, int], device: torch.device
) -> Targets:
    """Targets from the classes [N] and the masks in each of the T frames, of every clip."""
    pixels, places, start = [], [], 0
    for _, frames in annotated:
        own_places = []
        for masks in frames:
            frame_pixels, frame_places = _flattened(masks)
            pixels.append(frame_pixels.to(device, non_blocking=True))
            own_places.append(frame_places + frame_places.new_tensor([start, 0, 0, 0, 0, 0]))
            start += len(frame_pixels)
        places.append(torch.cat(own_places, 1))
    merged = pixels[0] if len(pixels) == 1 else torch.cat(pixels)  # a single image's masks are not copied
    classes = torch.cat([c.to(device, torch.int64, non_blocking=True) for c, _ in annotated])
    places = torch.cat(places).to(device, non_blocking=True)
    return Targets(classes, merged, places, padded_size, [len(c) for c, _ in annotated])


def _flattened(masks) -> tuple[Tensor, Tensor]:
    """Pixels [S] and places [N,1,6] of one frame's masks; places are made on the host."""
    if isinstance(masks, CompactMasks):
        return masks.pixels, masks.places.cpu()[:, None]
    masks = masks.tensor if hasattr(masks, "tensor") else masks
    return masks.to(torch.bool).reshape(-1), dense_places(len(masks), 1, *masks.shape[1:])


def dense_places(count: int, frames: int, height: int, width: int) -> Tensor:
    """Places [N,T,6] of boolean masks [N,T,h,w] that are stored whole."""
    starts = torch.arange(count * frames).view(count, frames, 1) * (height * width)
    return torch.cat([starts, torch.tensor([0, 0, width, height, 1]).expand(count, frames, 5)], 2)
