"""From mask logits at stride 4 to semantic, panoptic and instance results at the wanted size.

Each function chooses the queries it needs first and resizes only those. Cheng et al., MaskFormer, NeurIPS 2021,
sec. 3.4 (semantic, panoptic); Mask2Former's instance scores: class probability times mean mask probability.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.modeling.full_size import binary, class_scores, owners
from mask2former.modeling.resizing import Geometry
from mask2former.structures import Instances

# Q queries, K classes, T frames, h w map size (stride 4 of the padded batch), H W wanted size

_FRAMES = 16  # of a clip, resized together


def semantic(class_logits: Tensor, mask_logits: Tensor, geometry: Geometry, resize_first: bool) -> Tensor:
    """Class scores [K,H,W] from class logits [Q,K+1] and mask logits [Q,h,w].

    ``resize_first`` brings the masks to the wanted size before they are combined, else the scores after.
    """
    probability = class_logits.softmax(-1)[:, :-1]
    if not len(mask_logits):
        return probability.new_zeros(probability.shape[1], *geometry.output)
    return class_scores(probability, mask_logits, geometry, resize_first)


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
    classes = torch.where(keep, classes, -1).tolist()
    kept = [query for query, category in enumerate(classes) if category >= 0]
    if not kept:
        return torch.zeros(geometry.output, dtype=torch.int32, device=mask_logits.device), []
    rows = torch.tensor(kept).to(scores.device, non_blocking=True)
    states, full = owners(mask_logits[rows], scores[rows], geometry)
    outside_and_visible = torch.bincount(states.flatten(), minlength=2 * len(kept)).view(-1, 2)
    owned = outside_and_visible.sum(1)
    painted = owned if fill else outside_and_visible[:, 1]
    areas = torch.stack([full, owned, painted], 1).tolist()
    table, info = _segments([classes[query] for query in kept], areas, thing_ids, overlap_threshold)
    ids = torch.tensor([(number if fill else 0, number) for number in table], dtype=torch.int32).flatten()
    return ids.to(states.device, non_blocking=True)[states], info


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
        wanted = torch.tensor([k in classes for k in range(num_classes)]).to(labels.device, non_blocking=True)
        chosen = wanted[labels].nonzero()[:, 0]
        scores, index, labels = scores[chosen], index[chosen], labels[chosen]
    queries = index // num_classes
    # a query that enters with several classes is resized once
    distinct, row = torch.unique(queries, return_inverse=True)
    if len(distinct) == len(queries):
        distinct, row = queries, slice(None)
    masks, quality, boxes = binary(mask_logits[distinct], geometry)
    return Instances(
        geometry.output,
        pred_masks=masks[row],
        pred_boxes=boxes[row],
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
