"""What results need to know of masks at the wanted size. The masks' values there exist for some rows at a time only.

The definitions are plain torch. Of masks on a CPU, `ops/mask_results.py` computes the same by the compiled library.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.modeling.resizing import Geometry, Taps, resample
from mask2former.ops import mask_results
from mask2former.structures import masks_to_boxes
from mask2former.utils.memory import empty_large

# Q queries, h w map size (stride 4 of the padded batch), H W wanted size, R rows of a chunk


def class_scores(probability: Tensor, mask_logits: Tensor, geometry: Geometry, resize_first: bool) -> Tensor:
    """Sum over the queries of class probability [Q,K] times mask probability: [K,H,W] in the former's dtype.

    With ``resize_first`` mask logits [Q,h,w] are resized to the wanted size; else to the image's, and from there
    probabilities. Scores are linear in these: to resize them instead gives the same, but there are more of them.
    """
    at_once = resize_first or geometry.image == geometry.output
    to_image, to_output = geometry.image_taps(mask_logits), geometry.output_taps()
    if at_once:
        to_image, to_output = geometry.taps(mask_logits), tuple(Taps.bilinear(size, size) for size in geometry.output)
    if mask_results.served(mask_logits, probability):
        axes = (tuple(taps.pair for taps in both) for both in (to_image, to_output))
        return mask_results.mask_scores(probability, mask_logits, *axes).to(probability.dtype)
    out = empty_large((probability.shape[1], *geometry.output), probability.dtype, probability.device)
    (rows, columns), (last_rows, last_columns) = to_image, to_output
    for chunk in geometry.chunks(mask_logits):
        needed, narrow = last_rows.part(chunk).narrowed()
        values = resample(mask_logits, rows.part(needed), columns).sigmoid_()  # [R,W,Q]
        if not at_once:
            values = last_columns.resize(narrow.resize(values, 0), 1)
        pixels = values.flatten(0, 1)
        out[:, chunk] = (probability.to(pixels.dtype).T @ pixels.T).unflatten(1, values.shape[:2])
    return out


def owners(mask_logits: Tensor, scores: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Which query has the highest score [Q] times mask probability, at each pixel of the result.

    Returns int64 [H,W], twice the query's number, plus 1 where its probability is at least one half; and int64 [Q],
    the pixels where each query's probability is.
    """
    rows, columns = geometry.taps(mask_logits)
    if mask_results.served(mask_logits):
        return mask_results.mask_owners(mask_logits, scores, rows.pair, columns.pair)
    states = torch.empty(geometry.output, dtype=torch.int64, device=mask_logits.device)
    areas = torch.zeros(len(mask_logits), dtype=torch.int64, device=mask_logits.device)
    for chunk in geometry.chunks(mask_logits):
        values = resample(mask_logits, rows.part(chunk), columns)
        inside = values >= 0
        # int32, since torch makes numbers of that type of all pixels before it adds them
        areas += inside.flatten(0, 1).sum(0, dtype=torch.int32)
        owner = (values.sigmoid_() * scores).nan_to_num_(-1.0).argmax(-1)  # NaN never wins
        states[chunk] = owner * 2 + inside.gather(2, owner[..., None])[..., 0]
    return states, areas


def binary(mask_logits: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
    """Masks [Q,H,W] bool, where the resized logits [Q,h,w] are positive, and for each the following.

    Its mean probability inside [Q], which is 0 where it is empty, and the box around it [Q,4] float32 (x0,y0,x1,y1).
    """
    rows, columns = geometry.taps(mask_logits)
    masks = empty_large((len(mask_logits), *geometry.output), torch.bool, mask_logits.device)
    if mask_results.served(mask_logits):
        totals, areas, boxes = mask_results.mask_binary(mask_logits, rows.pair, columns.pair, masks)
        precise = torch.promote_types(mask_logits.dtype, torch.float32)
        return masks, (totals / (areas + 1e-6)).to(precise), boxes.float()
    areas = torch.zeros(len(mask_logits), dtype=torch.int64, device=mask_logits.device)
    # half precision overflows over a large mask
    totals = torch.zeros_like(areas, dtype=torch.promote_types(mask_logits.dtype, torch.float32))
    for chunk in geometry.chunks(mask_logits):
        values = resample(mask_logits, rows.part(chunk), columns)
        inside = values > 0
        masks[:, chunk] = inside.permute(2, 0, 1)
        areas += inside.flatten(0, 1).sum(0, dtype=torch.int32)
        totals += (values.sigmoid_() * inside).flatten(0, 1).sum(0)
    return masks, totals / (areas + 1e-6), masks_to_boxes(masks)
