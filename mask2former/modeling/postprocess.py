"""From mask logits at stride 4 to semantic, panoptic and instance results at the wanted size.

Each function chooses the queries it needs first and resizes only those. Cheng et al., MaskFormer, NeurIPS 2021,
sec. 3.4 (semantic, panoptic); Mask2Former's instance scores: class probability times mean mask probability.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.structures import Instances, masks_to_boxes

# Q queries, K classes, T frames, h w map size (stride 4 of the padded batch), H W wanted size

_FRAMES = 16  # of a clip, resized together


@dataclass(frozen=True)
class Geometry:
    """(height, width) of the padded batch, of the image inside it, and of the wanted result."""

    padded: tuple[int, int]
    image: tuple[int, int]
    output: tuple[int, int]

    def to_image(self, maps: Tensor) -> Tensor:
        """[N,h,w] -> [N,*image]: up to the padded size, padding cut off."""
        maps = _resize(maps, self.padded)
        return maps[:, : self.image[0], : self.image[1]]

    def to_output(self, maps: Tensor) -> Tensor:
        """[N,h,w] -> [N,*output]."""
        return _resize(self.to_image(maps), self.output)


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size) or not len(maps):
        return maps if len(maps) else maps.new_zeros(0, *size)
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def semantic(class_logits: Tensor, mask_logits: Tensor, geometry: Geometry, resize_first: bool) -> Tensor:
    """Class scores [K,H,W] from class logits [Q,K+1] and mask logits [Q,h,w].

    ``resize_first`` brings the masks to the wanted size before they are combined, else the scores after.
    """
    probability = class_logits.softmax(-1)[:, :-1]
    masks = geometry.to_output(mask_logits) if resize_first else geometry.to_image(mask_logits)
    scores = torch.einsum("qk,qhw->khw", probability, masks.sigmoid())
    return scores if resize_first else _resize(scores, geometry.output)


def panoptic(
    class_logits: Tensor,
    mask_logits: Tensor,
    geometry: Geometry,
    *,
    thing_ids: frozenset[int],
    score_threshold: float,
    overlap_threshold: float,
    fill: bool = False,
) -> tuple[Tensor, list[dict]]:
    """Segment ids [H,W] int32 (0: none) and for each segment {"id", "isthing", "category_id"}.

    Every pixel goes to the query with the highest score times mask probability. A query is dropped when its class
    score is not above ``score_threshold``, or when less than ``overlap_threshold`` of its mask is left to it.
    Segments of one stuff class are merged. A pixel that its query's mask leaves out (probability below one half) stays
    empty (Mask2Former), or with ``fill`` goes to the query all the same (MaskFormer).
    """
    scores, classes = class_logits.softmax(-1).max(-1)
    keep = (classes != class_logits.shape[1] - 1) & (scores > score_threshold)
    scores, classes = scores[keep], classes[keep].tolist()
    segments = torch.zeros(geometry.output, dtype=torch.int32, device=mask_logits.device)
    if not classes:
        return segments, []
    probability = geometry.to_output(mask_logits[keep]).sigmoid()
    owner = (scores[:, None, None] * probability).argmax(0)
    inside = probability.gather(0, owner[None])[0] >= 0.5
    full = (probability >= 0.5).flatten(1).sum(1)
    outside_and_visible = torch.bincount((owner * 2 + inside).flatten(), minlength=2 * len(classes)).view(-1, 2)
    owned = outside_and_visible.sum(1)
    painted = owned if fill else outside_and_visible[:, 1]
    areas = torch.stack([full, owned, painted], 1).tolist()
    table, info = _segments(classes, areas, thing_ids, overlap_threshold)
    ids = torch.tensor(table, dtype=torch.int32, device=segments.device)
    return ids[owner] if fill else torch.where(inside, ids[owner], segments), info


def _segments(
    classes: list[int], areas: list[list[int]], thing_ids: frozenset[int], overlap_threshold: float
) -> tuple[list[int], list[dict]]:
    """Segment id of each kept query (0: dropped), and the segments."""
    table, info, stuff = [], [], {}
    for category, (full, owned, painted) in zip(classes, areas):
        if not painted or not full or owned / full < overlap_threshold:
            table.append(0)
        elif category in stuff:
            table.append(stuff[category])
        else:
            isthing = category in thing_ids
            info.append({"id": len(info) + 1, "isthing": isthing, "category_id": category})
            table.append(len(info))
            if not isthing:
                stuff[category] = len(info)
    return table, info


def instances(
    class_logits: Tensor, mask_logits: Tensor, geometry: Geometry, *, top_k: int, classes: frozenset[int] | None
) -> Instances:
    """The ``top_k`` highest (query, class) pairs as Instances of the wanted size.

    pred_masks [N,H,W] bool, pred_boxes [N,4] float32 (x0,y0,x1,y1 around the mask), scores [N], pred_classes [N].
    ``classes`` keeps only these (things, where stuff is predicted too); None keeps all.
    """
    probability = class_logits.softmax(-1)[:, :-1]
    num_classes = probability.shape[1]
    scores, index = probability.flatten().topk(min(top_k, probability.numel()), sorted=False)
    labels = index % num_classes
    if classes is not None:
        wanted = torch.zeros(num_classes, dtype=torch.bool, device=labels.device)
        wanted[list(classes)] = True
        scores, index, labels = (x[wanted[labels]] for x in (scores, index, labels))
    # a query that enters with several classes is resized once
    queries, row = torch.unique(index // num_classes, return_inverse=True)
    logits = geometry.to_output(mask_logits[queries])
    masks = logits > 0
    precise = torch.promote_types(logits.dtype, torch.float32)  # half precision overflows over a large mask
    inside = (logits.sigmoid() * masks).flatten(1).sum(1, dtype=precise)
    quality = inside / (masks.flatten(1).sum(1) + 1e-6)
    return Instances(
        geometry.output,
        pred_masks=masks[row],
        pred_boxes=masks_to_boxes(masks)[row],
        scores=scores * quality[row],
        pred_classes=labels,
    )


def tracks(
    class_logits: Tensor, mask_logits: Tensor, geometry: Geometry, *, top_k: int
) -> tuple[list[float], list[int], list[Tensor]]:
    """The ``top_k`` best (query, class) pairs of a clip: class probabilities, classes, masks bool [T,H,W] on the CPU.

    From class logits [Q,K+1] and mask logits [Q,T,h,w]. The published score has no factor for the mask's quality.
    """
    probability = class_logits.softmax(-1)[:, :-1]
    scores, index = probability.flatten().topk(min(top_k, probability.numel()))
    queries, classes = (index // probability.shape[1]).tolist(), (index % probability.shape[1]).tolist()
    masks = {query: _clip_mask(mask_logits[query], geometry) for query in set(queries)}
    return scores.tolist(), classes, [masks[query] for query in queries]


def _clip_mask(logits: Tensor, geometry: Geometry) -> Tensor:
    """[T,h,w] -> bool [T,H,W] on the CPU, some frames at a time: full-size logits take four times the room of masks."""
    return torch.cat([(geometry.to_output(part) > 0).cpu() for part in logits.split(_FRAMES)])
