"""Fixed sine position encodings (Carion et al., DETR, ECCV 2020; with time: Cheng et al., arXiv:2112.10764)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# T frames, h w map size, C channels


def sine_position_encoding(
    size: tuple[int, int, int], channels: int, *, temporal: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Encoding [C,T,h,w] of a map of ``size`` (T, h, w).

    The first C/2 channels tell the row, the others the column, as interleaved sines and cosines of positions
    normalised to (0, 2 pi]. With ``temporal`` an encoding of the frame over all C channels is added; without it,
    every frame has the same encoding. The two differ at T = 1 too.
    """
    if channels % 4:
        raise ValueError(f"a 2-D sine encoding needs a multiple of 4 channels, got {channels}")
    frames, h, w = size
    # float32 at least: in half precision neighbouring positions coincide
    precise = torch.promote_types(dtype, torch.float32)
    rows = _axis(h, channels // 2, device, precise).t()[None, :, None].expand(frames, h, w, -1)
    columns = _axis(w, channels // 2, device, precise).t()[None, None].expand(frames, h, w, -1)
    encoding = torch.cat([rows, columns], -1).permute(3, 0, 1, 2)  # a pixel's channels together, as they are used
    if temporal:
        encoding = encoding + _axis(frames, channels, device, precise)[:, :, None, None]
    return encoding.to(dtype)


def _axis(size: int, channels: int, device: torch.device, dtype: torch.dtype, temperature: float = 10000.0) -> Tensor:
    """Sines (even channels) and cosines (odd channels) of the positions 1 .. size, [channels, size]."""
    pair = torch.arange(channels, device=device, dtype=dtype) // 2
    position = torch.arange(1, size + 1, device=device, dtype=dtype) / (size + 1e-6) * (2 * math.pi)
    angle = position[None] / (temperature ** (2 * pair / channels))[:, None]
    return torch.stack([angle[0::2].sin(), angle[1::2].cos()], 1).flatten(0, 1)
