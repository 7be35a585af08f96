"""Multi-scale deformable attention in Triton: for CUDA tensors where no compiler is at hand.

A program works on one query and head with all its samples at once: locations and weights are read once per head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# X samples of a query and head, L*P padded to a power of two; C channels, D padded likewise

WARPS = 1  # a program has little to do


@triton.jit
def _corner(column, row, h, w, dx: tl.constexpr, dy: tl.constexpr):
    """Whether each sample's pixel at (dx, dy) from its top left one is inside, its index in the level, its share.

    Comparisons with NaN are false, and no index is made of it.
    """
    left, top = tl.floor(column), tl.floor(row)
    near = (column >= -1) & (column < w) & (row >= -1) & (row < h)
    x = tl.where(near, left, 0).to(tl.int64) + dx
    y = tl.where(near, top, 0).to(tl.int64) + dy
    inside = near & (x >= 0) & (x < w) & (y >= 0) & (y < h)
    share_x = column - left if dx else 1 - (column - left)
    share_y = row - top if dy else 1 - (row - top)
    return inside, y * w + x, tl.where(near, share_x, 0), tl.where(near, share_y, 0)


@triton.jit
def _samples(levels, locations, weights, item, samples, P, X: tl.constexpr):
    """Of each sample: column, row and weight, its level's h, w and first pixel, its NaN if nothing is seen."""
    s = tl.arange(0, X)
    real = s < samples
    place = item * samples + s
    level = s // P
    h = tl.load(levels + 3 * level, real, 0)
    w = tl.load(levels + 3 * level + 1, real, 0)
    start = tl.load(levels + 3 * level + 2, real, 0)
    x = tl.load(locations + 2 * place, real, 0)
    y = tl.load(locations + 2 * place + 1, real, 0)
    weight = tl.load(weights + place, real, 0)
    column, row = x * w - 0.5, y * h - 0.5
    outside = ~((column >= -1) & (column < w) & (row >= -1) & (row < h)) & (h * w > 0)
    lost = tl.where(outside, x * 0 + y * 0, 0)
    poison = tl.where(outside, lost + weight * 0, 0)
    return place, real, column, row, weight, h, w, start, lost, poison


@triton.jit
def _forward(value, levels, locations, weights, out, S, H, D, Q, P, samples, X: tl.constexpr, C: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)  # of [B,Q,H]
    _, _, column, row, weight, h, w, start, _, poison = _samples(levels, locations, weights, item, samples, P, X)
    channel = tl.arange(0, C)
    image = value + (item // H // Q * S * H + item % H) * D
    total = tl.zeros([X, C], weight.dtype)
    for dy in tl.static_range(2):
        for dx in tl.static_range(2):
            inside, pixel, share_x, share_y = _corner(column, row, h, w, dx, dy)
            offset = (start + pixel)[:, None] * H * D + channel[None, :]
            values = tl.load(image + offset, inside[:, None] & (channel < D)[None, :], 0).to(weight.dtype)
            # a share of an outside pixel is no zero if its weight is NaN
            total += tl.where(inside, weight * share_x * share_y, 0)[:, None] * values
    result = tl.sum(total, 0) + tl.sum(poison, 0)
    tl.store(out + item * D + channel, result.to(out.dtype.element_ty), channel < D)


@triton.jit
def _backward(
    grad,
    value,
    levels,
    locations,
    weights,
    grad_value,
    grad_locations,
    grad_weights,
    S,
    H,
    D,
    Q,
    P,
    samples,
    X: tl.constexpr,
    C: tl.constexpr,
):
    item = tl.program_id(0).to(tl.int64)
    place, real, column, row, weight, h, w, start, lost, poison = _samples(
        levels, locations, weights, item, samples, P, X
    )
    channel = tl.arange(0, C)
    image = (item // H // Q * S * H + item % H) * D
    upper = tl.load(grad + item * D + channel, channel < D, 0).to(weight.dtype)
    seen = h < 0  # nobody, so far
    to_weight, to_column, to_row = lost, tl.zeros_like(lost), tl.zeros_like(lost)
    for dy in tl.static_range(2):
        for dx in tl.static_range(2):
            inside, pixel, share_x, share_y = _corner(column, row, h, w, dx, dy)
            mask = inside[:, None] & (channel < D)[None, :]
            offset = image + (start + pixel)[:, None] * H * D + channel[None, :]
            values = tl.load(value + offset, mask, 0).to(weight.dtype)
            product = tl.sum(tl.where(inside[:, None], values * upper[None, :], 0), 1)
            part = (weight * share_x * share_y)[:, None] * upper[None, :]
            tl.atomic_add(grad_value + offset, part, mask, sem="relaxed")
            seen = seen | inside
            to_weight += share_x * share_y * product
            to_column += (share_y if dx else -share_y) * product
            to_row += (share_x if dy else -share_x) * product
    tl.store(grad_weights + place, to_weight, real)
    tl.store(grad_locations + 2 * place, tl.where(seen, weight * w * to_column, poison), real)
    tl.store(grad_locations + 2 * place + 1, tl.where(seen, weight * h * to_row, poison), real)


def ms_deform_attn_forward(value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """[B,Q,H*D]; arguments as in :func:`mask2former.ops.ms_deform_attn`, shapes int64 and on the host."""
    batch, _, heads, channels = value.shape
    out = value.new_empty(batch, locations.shape[1], heads * channels)
    _launch(_forward, (value.contiguous(),), value, shapes, locations, weights, (out,))
    return out


def ms_deform_attn_backward(
    grad: Tensor, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and weights, given that of the output; that of value differs from run to run."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    grads = [torch.zeros(x.shape, dtype=dtype, device=x.device) for x in (value, locations, weights)]
    _launch(_backward, (grad.contiguous(), value.contiguous()), value, shapes, locations, weights, grads)
    return tuple(g.to(x.dtype) for g, x in zip(grads, (value, locations, weights)))


def _launch(kernel, given, value: Tensor, shapes: Tensor, locations: Tensor, weights: Tensor, results) -> None:
    """Call the kernel for every query and head, if there is anything to do."""
    batch, pixels, heads, channels = value.shape
    queries, _, levels, points = locations.shape[1:5]
    items = batch * queries * heads
    if items * channels == 0:
        return
    dtype = torch.promote_types(value.dtype, torch.float32)
    precise = [x.to(dtype).contiguous() for x in (locations, weights)]
    sizes = shapes.prod(1, keepdim=True)
    table = torch.cat([shapes, sizes.cumsum(0) - sizes], 1).to(value.device)  # [L,3]: h, w, first pixel
    padded = [triton.next_power_of_2(max(n, 1)) for n in (levels * points, channels)]
    numbers = pixels, heads, channels, queries, points, levels * points
    with torch.cuda.device_of(value):
        kernel[(items,)](*given, table, *precise, *results, *numbers, *padded, num_warps=WARPS)
