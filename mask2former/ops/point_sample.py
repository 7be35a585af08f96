"""Values of maps and masks at points, and the choice of those points (PointRend, Kirillov et al., CVPR 2020).

Points are (x, y) in [0,1] over the whole map; pixel i of n has its centre at (i + 0.5) / n.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# N maps, C channels, P points, H W map size


def random_points(count: int, points: int, like: Tensor) -> Tensor:
    """Uniform points [count,P,2] on the device of ``like``; at least float32, half precision is too coarse for them."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.rand(count, points, 2, device=like.device, dtype=dtype)


def sample_map(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [N,C,P] of maps [N,C,H,W] at points [N,P,2]; zero beyond the border."""
    grid = (2 * points - 1).to(maps.dtype)
    return F.grid_sample(maps, grid[:, None], align_corners=False)[:, :, 0]


def sample_mask(masks: Tensor, points: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bilinear values [N,P] of boolean masks [M,H,W] at points [N,P,2], in the dtype of the points.

    ``rows`` [N] says which mask each set of points is for; None: the n-th for the n-th (N = M). Equal to sampling
    ``masks[rows].float()``, but reads the four neighbours of each point from the boolean masks: neither chosen nor
    floating copies of full-size masks exist.
    """
    h, w = masks.shape[-2:]
    flat = masks.flatten()
    rows = torch.arange(len(masks), device=masks.device) if rows is None else rows
    start = rows[:, None] * (h * w)
    x, y = points[..., 0] * w - 0.5, points[..., 1] * h - 0.5  # [N,P]
    left, top = x.floor(), y.floor()
    value = torch.zeros_like(x)
    for column, x_weight in ((left, left + 1 - x), (left + 1, x - left)):
        for row, y_weight in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            # whole numbers below 2**24 per axis are exact in float32, their product with w is not
            index = start + row.clamp(0, h - 1).long() * w + column.clamp(0, w - 1).long()
            value += flat[index] * (x_weight * y_weight * inside)
    return value


@torch.no_grad()
def uncertain_points(logits: Tensor, points: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    """Points [N,P,2] where mask logits [N,H,W] are near zero, with a random rest (PointRend, sec. 3.1).

    Of ``oversample_ratio * P`` random candidates the ``importance_ratio * P`` least certain ones are kept; the
    others are drawn anew, uniformly.
    """
    candidates = random_points(len(logits), int(points * oversample_ratio), logits)
    certainty = sample_map(logits[:, None], candidates)[:, 0].abs()
    important = int(points * importance_ratio)
    chosen = certainty.topk(important, dim=1, largest=False, sorted=False).indices
    kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([kept, random_points(len(logits), points - important, logits)], 1)
