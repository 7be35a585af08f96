"""The definition of each op in pure PyTorch: exact on every device and dtype, differentiable, and the yardstick."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# neighbourhood attention: N heads, H W pixels, k kernel size


def ms_deform_attn_reference(
    value: Tensor, spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
) -> Tensor:
    """Multi-scale deformable attention, one bilinear lookup per level; see :func:`mask2former.ops.ms_deform_attn`."""
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    # align_corners=False puts pixel centres at (i + 0.5) / size, as the sampling locations do
    # and points before queries let the sum over points run along contiguous queries
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 4, 1, 5).flatten(1, 2)  # [L, B*H, P, Q, 2]
    weights = attention_weights.permute(3, 0, 2, 4, 1).flatten(1, 2).unsqueeze(2)  # [L, B*H, 1, P, Q]
    dtype = torch.promote_types(value.dtype, torch.float32)  # half precision cannot tell neighbouring pixels apart
    out = torch.zeros(batch * heads, channels, queries, dtype=dtype, device=value.device)
    shapes = spatial_shapes.tolist()
    for level, ((h, w), part) in enumerate(zip(shapes, value.split([h * w for h, w in shapes], 1))):
        if h * w == 0:
            continue
        pixels = part.permute(0, 2, 3, 1).reshape(batch * heads, channels, h, w)
        sampled = F.grid_sample(pixels.to(dtype), grids[level].to(dtype), padding_mode="zeros", align_corners=False)
        out = out + (sampled * weights[level]).sum(2)
    return out.view(batch, heads * channels, queries).transpose(1, 2).to(value.dtype)


def neighborhood_attention_2d_reference(
    q: Tensor, k: Tensor, v: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int, scale: float
) -> Tensor:
    """Neighbourhood attention, every neighbourhood written out; see :func:`mask2former.ops.neighborhood_attention_2d`.

    Maps must have at least kernel_size * dilation rows and columns.
    """
    (rows, down), (columns, right) = (_neighbours(n, kernel_size, dilation, q.device) for n in q.shape[2:4])
    keys, values = (x[:, :, rows[:, None, :, None], columns[None, :, None, :]] for x in (k, v))  # [B,N,H,W,k,k,D]
    logits = torch.einsum("bnhwd,bnhwijd->bnhwij", q * scale, keys)
    if rpb is not None:
        logits = logits + rpb[:, down[:, None, :, None], right[None, :, None, :]]
    weights = logits.flatten(4).softmax(-1).view_as(logits)
    return torch.einsum("bnhwij,bnhwijd->bnhwd", weights, values)


def _neighbours(size: int, kernel_size: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each pixel of an axis its neighbours [size,k], and which entry of an axis of rpb each has [size,k]."""
    pixel = torch.arange(size, device=device)[:, None]
    group, place = pixel % dilation, pixel // dilation  # which pixels it can see, and where it is among them
    last = (size - 1 - group) // dilation  # place of the last pixel of its group
    first = torch.minimum((place - kernel_size // 2).clamp(min=0), last + 1 - kernel_size)
    neighbour = first + torch.arange(kernel_size, device=device)
    return neighbour * dilation + group, neighbour - place + kernel_size - 1
