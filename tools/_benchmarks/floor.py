"""How fast this machine could be: what must be multiplied, and how fast it multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

import mask2former.ops  # noqa: F401  (registers the op below)

# B batch, N heads, H W pixels, D channels per head

SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices: enough to keep the device busy


def gemm_speed(device: torch.device, size: int | None = None) -> float:
    """FLOP/s of the product of two float32 matrices, the best of five."""
    size = size or SIZE[device.type]
    left, right = torch.randn(2, size, size, device=device)
    return max(2 * size**3 / _seconds(left, right) for _ in range(5))


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    (left @ right)[0, 0].item()  # which waits for a GPU
    return time.perf_counter() - start


def count_flops(call: Callable[[], Any]) -> int:
    """The FLOPs of `call`'s matrix products, convolutions and attention, repeated ones too, by their definitions.

    Winograd's convolutions multiply less than that: what uses them can be faster than its floor.
    """
    # what the counter does not know
    ours = {torch.ops.mask2former.neighborhood_attention_2d: _neighborhood_flops, torch.ops.aten.addmm_: _product_flops}
    if torch.backends.mkldnn.is_available():
        ours[torch.ops.mkldnn._convolution_pointwise] = _pointwise_flops
        ours[torch.ops.mkldnn._convolution_pointwise_] = _accumulated_flops
    with FlopCounterMode(display=False, custom_mapping=ours) as counter:
        call()
    return counter.get_total_flops()


def _neighborhood_flops(q, k, v, rpb, kernel_size: int, *settings, out_val=None, **kwargs) -> int:
    """Of the shape q [B,N,H,W,D]: two products, each query with kernel_size**2 keys and values."""
    return 2 * 2 * kernel_size**2 * torch.Size(q).numel()


def _product_flops(total, left, right, **kwargs) -> int:
    """Of the shapes [M,N], [M,K] and [K,N] of a matrix and of two whose product is added to it."""
    return 2 * left[0] * left[1] * right[1]


def _pointwise_flops(x, *others, out_shape, **kwargs) -> int:
    """Of the shapes of a map and of weights [D,C,k,k], before which a map that is added to the result may stand."""
    weight = others[1] if len(others[1] or ()) == 4 else others[0]  # behind them is a bias [D] or none
    return conv_flop_count(x, weight, out_shape)


def _accumulated_flops(total, x, weight, *settings, out_val=None, **kwargs) -> int:
    """Of the shapes [N,C,H,W] of a result and a map, and of the weights of the convolution between them."""
    return conv_flop_count(x, weight, total)
