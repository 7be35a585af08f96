"""Values of maps and masks at points, and the choice of those points (PointRend, Kirillov et al., CVPR 2020).

Points are (x, y) in [0,1] over the whole map; pixel i of n has its centre at (i + 0.5) / n.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# N maps, C channels, P points, H W map size

_PORTION = 256  # masks sampled at a time
_CANDIDATES = 1 << 21  # points of all masks chosen from at a time


def random_points(count: int, points: int, like: Tensor) -> Tensor:
    """Uniform points [count,P,2] on the device of ``like``; at least float32, half precision is too coarse for them."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.rand(count, points, 2, device=like.device, dtype=dtype)


def sample_map(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [N,C,P] of maps [N,C,H,W] at points [N,P,2]; zero beyond the border."""
    grid = (2 * points - 1).to(maps.dtype)
    return F.grid_sample(maps, grid[:, None], align_corners=False)[:, :, 0]


def sample_mask(pixels: Tensor, places: Tensor, size: tuple[int, int], points: Tensor) -> Tensor:
    """Bilinear values [N,P] of masks at points [N,P,2] or, shared by all masks, [P,2], in the points' dtype.

    Equal to sampling the masks as floating maps of ``size`` (H, W), but reads the four neighbours of each point from
    the stored pixels: no floating, padded or full-size copies exist. Many masks are sampled in portions, since the
    indices of a thousand would take gigabytes.

    Args:
        pixels: bool or integer [S].
        places: int64 [N,6]: where in ``pixels`` the n-th mask's window starts, the window's x0 and y0 in the map, its
            width and height, and the value of pixels inside the mask. Outside its window a mask is zero.
        size: (H, W) of the map that the points are spread over.
        points: in [0,1].
    """
    portions = places.split(_PORTION)
    shared = points.dim() == 2
    points_of = [points] * len(portions) if shared else points.split(_PORTION)
    return torch.cat([_sample_portion(pixels, *of, size) for of in zip(portions, points_of)])


def _sample_portion(pixels: Tensor, places: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = points[..., 0] * size[1] - 0.5, points[..., 1] * size[0] - 0.5  # [N,P] or [P]
    left, top = x.floor(), y.floor()
    result = x.new_zeros(len(places), x.shape[-1])
    for column, x_weight in ((left, left + 1 - x), (left + 1, x - left)):
        for row, y_weight in ((top, top + 1 - y), (top + 1, y - top)):
            result += read_mask(pixels, places, row.long(), column.long()) * (x_weight * y_weight)
    return result


def read_mask(pixels: Tensor, places: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Whether pixels (x, y), int64 [P] or [N,P], are inside masks, bool [N,P]; `pixels`, `places`: see sample_mask."""
    start, x0, y0, w, h, value = (column[:, None] for column in places.unbind(1))
    across, down = x - x0, y - y0
    in_window = (across >= 0) & (across < w) & (down >= 0) & (down < h)
    if not len(pixels):
        return torch.zeros_like(in_window)
    index = torch.where(in_window, start + down * w + across, 0)
    return (pixels[index] == value) & in_window


@torch.no_grad()
def uncertain_points(logits: Tensor, points: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    """Points [N,P,2] where mask logits [N,H,W] are near zero, with a random rest (PointRend, sec. 3.1).

    Of ``oversample_ratio * P`` random candidates the ``importance_ratio * P`` least certain ones are kept; the
    others are drawn anew, uniformly.
    """
    at_once = max(1, _CANDIDATES // max(1, int(points * oversample_ratio)))
    portions = [_uncertain(some, points, oversample_ratio, importance_ratio) for some in logits.split(at_once)]
    return torch.cat(portions)


def _uncertain(logits: Tensor, points: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    candidates = random_points(len(logits), int(points * oversample_ratio), logits)
    certainty = sample_map(logits[:, None], candidates)[:, 0].abs()
    important = int(points * importance_ratio)
    chosen = certainty.topk(important, dim=1, largest=False, sorted=False).indices
    kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([kept, random_points(len(logits), points - important, logits)], 1)
