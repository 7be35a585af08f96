"""The published post-processing, step for step: up to the padded size, crop, to the wanted size, and only then choose.

Slow, and with everything in memory at full size; the definition that the tests hold post-processing against.
"""

import torch
import torch.nn.functional as F

# Q queries, K classes, h w map size, H W wanted size


def resize(maps, size):
    """[N,h,w] -> [N,*size]"""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def to_image(maps, geometry):
    return resize(maps, geometry.padded)[:, : geometry.image[0], : geometry.image[1]]


def to_output(maps, geometry):
    return resize(to_image(maps, geometry), geometry.output)


def semantic(class_logits, mask_logits, geometry, resize_first):
    probability = class_logits.softmax(-1)[:, :-1]
    masks = (to_output if resize_first else to_image)(mask_logits, geometry).sigmoid()
    scores = torch.einsum("qk,qhw->khw", probability, masks)
    return scores if resize_first else resize(scores, geometry.output)


def panoptic(class_logits, mask_logits, geometry, thing_ids, score_threshold, overlap_threshold, fill):
    scores, classes = class_logits.softmax(-1).max(-1)
    probability = to_output(mask_logits, geometry).sigmoid()
    segments, info, stuff = torch.zeros(geometry.output, dtype=torch.int32), [], {}
    kept = [q for q, k in enumerate(classes.tolist()) if k < class_logits.shape[1] - 1 and scores[q] > score_threshold]
    if not kept:
        return segments, info
    owner = (scores[kept, None, None] * probability[kept]).argmax(0)
    for number, q in enumerate(kept):
        own, full = owner == number, probability[q] >= 0.5
        painted = own if fill else own & full
        if not painted.any() or not full.any() or own.sum().item() / full.sum().item() < overlap_threshold:
            continue
        category = int(classes[q])
        if category not in stuff:
            info.append({"id": len(info) + 1, "isthing": category in thing_ids, "category_id": category})
        segments[painted] = stuff.get(category, len(info))
        if category not in thing_ids:
            stuff.setdefault(category, len(info))
    return segments, info


def instances(class_logits, mask_logits, geometry, top_k):
    """(score, class, mask [H,W]) of each, in no order."""
    probability = class_logits.softmax(-1)[:, :-1]
    scores, index = probability.flatten().topk(min(top_k, probability.numel()))
    logits = to_output(mask_logits, geometry)[index // probability.shape[1]]
    masks = logits > 0
    quality = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)
    return scores * quality, index % probability.shape[1], masks
