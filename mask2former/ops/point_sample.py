"""Values of maps and masks at points, and the choice of those points (PointRend, Kirillov et al., CVPR 2020).

Points are (x, y) in [0,1] over the whole map; pixel i of n has its centre at (i + 0.5) / n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops import point_sample_cpp
from mask2former.ops.cpp import served

# N maps, C channels, T frames, P points, H W map size

_NAME = "point_sample"


def random_points(count: int, points: int, like: Tensor) -> Tensor:
    """Uniform points [count,P,2] on the device of ``like``; at least float32, half precision is too coarse for them."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    return torch.rand(count, points, 2, device=like.device, dtype=dtype)


def masks_at_once(samples: int, device: torch.device) -> int:
    """How many masks of ``samples`` points are looked at together, at least one.

    On the CPU they are to stay in its cache. Elsewhere many keep the device busy, but those of a thousand masks would
    be the peak of a training step.
    """
    most = 1 << 18 if device.type == "cpu" else 1 << 22
    return max(1, most // max(1, samples))


def sample_map(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [N,C,P] of maps [N,C,H,W] at points [N,P,2]; zero beyond the border."""
    if maps.shape[1] == 1 and not points.requires_grad and served(_NAME, maps, points):
        return point_sample_cpp.SampleMaps.apply(maps[:, 0], points)[:, None]
    grid = (2 * points - 1).to(maps.dtype)
    return F.grid_sample(maps, grid[:, None], align_corners=False)[:, :, 0]


def sample_features(features: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [B,T*P,C] of features [B,C,T,H,W] at points [B,P,2] that an image's T frames share; no gradient
    is computed. Zero beyond the border."""
    pixels = features.detach().permute(0, 2, 3, 4, 1)
    if pixels.is_contiguous() and served(_NAME, features, points):
        sampled = point_sample_cpp.sample_pixels(pixels.flatten(0, 1), points)  # [B*T,P,C]
        return sampled.view(len(features), features.shape[2] * points.shape[1], features.shape[1])
    sampled = sample_map(features.detach().flatten(1, 2), points)  # [B,C*T,P]
    return sampled.unflatten(1, features.shape[1:3]).flatten(2).transpose(1, 2)


def coverage(points: Tensor, size: tuple[int, int]) -> Tensor:
    """What a map of ones of ``size`` (H, W) is at points [...,2]: less than one beyond the outer pixels' centres."""
    x, y = points[..., 0] * size[1] - 0.5, points[..., 1] * size[0] - 0.5
    return torch.minimum(x + 1, size[1] - x).clamp(0, 1) * torch.minimum(y + 1, size[0] - y).clamp(0, 1)


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
    if pixels.device.type == "cpu" and pixels.dtype in point_sample_cpp.PIXELS and served(_NAME, points):
        return point_sample_cpp.sample_mask(pixels, places, size, points)
    portion = masks_at_once(points.shape[-2], points.device)
    portions = places.split(portion)
    points_of = [points] * len(portions) if points.dim() == 2 else points.split(portion)
    return torch.cat([_sample_portion(pixels, *of, size) for of in zip(portions, points_of)])


def _sample_portion(pixels: Tensor, places: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    x, y = points[..., 0] * size[1] - 0.5, points[..., 1] * size[0] - 0.5  # [N,P] or [P]
    left, top = x.floor(), y.floor()
    x_weights, y_weights = (left + 1 - x, x - left), (top + 1 - y, y - top)
    result = x.new_zeros(len(places), x.shape[-1])
    for (column, row), inside in zip(product((0, 1), (0, 1)), _neighbours(pixels, places, top, left, (0, 1))):
        result.addcmul_(inside, x_weights[column] * y_weights[row])
    return result


def read_mask(pixels: Tensor, places: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Whether pixels (x, y), int64 [P] or [N,P], are inside masks, bool [N,P]; `pixels`, `places`: see sample_mask."""
    return next(_neighbours(pixels, places, y, x, (0,)))


def _neighbours(pixels: Tensor, places: Tensor, y: Tensor, x: Tensor, steps: Sequence[int]) -> Iterator[Tensor]:
    """The same of pixels ``steps`` to the right of x, and for each of these ``steps`` below y, one after the other."""
    integer = torch.int32 if len(pixels) < 2**31 else torch.int64  # half the memory, and most of the time goes there
    start, x0, y0, w, h, value = (column[:, None] for column in places.to(integer).unbind(1))
    across, down = x.to(integer) - x0, y.to(integer) - y0
    here = start + down * w + across
    rows = [(step * w, (down >= -step) & (down < h - step)) for step in steps]
    for right in steps:
        in_columns = (across >= -right) & (across < w - right)
        for below, in_rows in rows:
            in_window = in_columns & in_rows
            if len(pixels):
                in_window &= pixels[torch.where(in_window, here + (below + right), 0)] == value
            yield in_window


@torch.no_grad()
def uncertain_points(logits: Tensor, points: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    """Points [N,P,2] where mask logits [N,H,W] are near zero, with a random rest (PointRend, sec. 3.1).

    Of ``oversample_ratio * P`` random candidates the ``importance_ratio * P`` least certain ones are kept; the
    others are drawn anew, uniformly.
    """
    portion = masks_at_once(int(points * oversample_ratio), logits.device)
    portions = [_uncertain(some, points, oversample_ratio, importance_ratio) for some in logits.split(portion)]
    return torch.cat(portions)


def _uncertain(logits: Tensor, points: int, oversample_ratio: float, importance_ratio: float) -> Tensor:
    candidates = random_points(len(logits), int(points * oversample_ratio), logits)
    important = int(points * importance_ratio)
    if served(_NAME, logits, candidates):
        result = candidates.new_empty(len(logits), points, 2)
        point_sample_cpp.least_certain(logits, candidates, important, result)
        result[:, important:] = random_points(len(logits), points - important, logits)
        return result
    certainty = sample_map(logits[:, None], candidates)[:, 0].abs()
    chosen = certainty.topk(important, dim=1, largest=False, sorted=False).indices
    kept = candidates.gather(1, chosen[..., None].expand(-1, -1, 2))
    return torch.cat([kept, random_points(len(logits), points - important, logits)], 1)
