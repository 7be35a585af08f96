"""Post-processing in the order of the papers: every query's mask to full size first, what is needed of them after.

The definitions are those of MaskFormer, sec. 3.4, and Mask2Former, sec. 4.1, each step on whole masks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

# Q queries, K classes, h w stride 4 of the padded image, H W wanted size

Size = tuple[int, int]


@dataclass(frozen=True)
class Sizes:
    """(height, width) of the padded image, of the image inside it, and of the wanted result."""

    padded: Size
    image: Size
    output: Size


def at_image_size(masks: Tensor, sizes: Sizes) -> Tensor:
    """[Q,h,w] at the size that the model saw, without padding."""
    return _resized(masks, sizes.padded)[:, : sizes.image[0], : sizes.image[1]]


def at_output_size(masks: Tensor, sizes: Sizes) -> Tensor:
    """[Q,h,w] -> [Q,H,W]."""
    return _resized(at_image_size(masks, sizes), sizes.output)


def _resized(maps: Tensor, size: Size) -> Tensor:
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def semantic(class_logits: Tensor, mask_logits: Tensor, sizes: Sizes) -> Tensor:
    """Class scores [K,H,W]: combined at the image's size, then resized."""
    masks = at_image_size(mask_logits, sizes).sigmoid()
    scores = torch.einsum("qk,qhw->khw", class_logits.softmax(-1)[:, :-1], masks)
    return _resized(scores, sizes.output)


def panoptic(
    class_logits: Tensor, mask_logits: Tensor, sizes: Sizes, things: Collection[int], least_score: float, least: float
) -> tuple[Tensor, list[dict]]:
    """Segment ids int32 [H,W] and {"id", "isthing", "category_id"} of each; `least` share of a mask must be seen."""
    masks = at_output_size(mask_logits, sizes).sigmoid()
    scores, classes = class_logits.softmax(-1).max(-1)
    kept = ((scores > least_score) & (classes < class_logits.shape[1] - 1)).nonzero()[:, 0].tolist()
    ids = torch.zeros(sizes.output, dtype=torch.int32, device=masks.device)
    segments: list[dict] = []
    if not kept:
        return ids, segments
    winners = (scores[kept, None, None] * masks[kept]).argmax(0)
    of_stuff: dict[int, int] = {}
    for place, query in enumerate(kept):
        own, inside = winners == place, masks[query] >= 0.5
        seen = own & inside
        if not seen.any().item() or own.sum().item() < least * inside.sum().item():
            continue
        category = classes[query].item()
        if category not in of_stuff:
            segments.append({"id": len(segments) + 1, "isthing": category in things, "category_id": category})
            if category not in things:
                of_stuff[category] = len(segments)
        ids[seen] = of_stuff.get(category, len(segments))
    return ids, segments


def instances(class_logits: Tensor, mask_logits: Tensor, sizes: Sizes, top: int) -> list[tuple[float, int, dict]]:
    """Score, class and COCO's RLE of the `top` best pairs of a query and a class."""
    masks = at_output_size(mask_logits, sizes)
    probability = class_logits.softmax(-1)[:, :-1]
    scores, pairs = probability.flatten().topk(top)
    masks = masks[pairs // probability.shape[1]]  # again for each class that the query is taken with
    inside = (masks > 0).float()
    quality = (masks.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
    rles = [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in inside.cpu()]
    classes = pairs % probability.shape[1]
    return list(zip((scores * quality).tolist(), classes.tolist(), rles, strict=True))
