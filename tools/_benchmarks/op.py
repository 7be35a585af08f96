"""Deformable and neighbourhood attention: our op beside plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from _benchmarks.contest import MILLISECONDS, Call, Contest, check_tensors
from _benchmarks.models import with_torch_ops
from _benchmarks.setting import Setting
from mask2former.ops import ms_deform_attn, neighborhood_attention_2d
from mask2former.ops.reference import ms_deform_attn_reference

# B batch, S pixels of all levels, H heads, D channels per head, Q queries, L levels, P points
# neighbourhood attention: N heads, H W map size, k kernel size

STRIDES = (32, 16, 8)  # of the pixel decoder's levels
HEADS, POINTS, CHANNELS = 8, 4, 32
SPREAD = 3.0  # standard deviation of the offsets, in pixels of the level
TOLERANCE = 1e-4  # float32 sums in another order
SHARE = 1e-4  # of numbers that may differ more: the gradient of a location jumps where it crosses a row of pixels

_Attend = Callable[..., Tensor]


def contests(setting: Setting) -> Iterator[Contest]:
    """Forward and backward of each op; memory is what it takes beyond inputs, outputs and gradients."""
    for size in setting.pick((512, 1024), (64,)):
        levels = tuple(size // stride for stride in STRIDES)
        yield from _both_passes(
            f"ms_deform_attn {size}x{size}",
            partial(_deformable_inputs, levels),
            setting,
            partial(_deformable, ms_deform_attn, levels),
            partial(_deformable, ms_deform_attn_reference, levels),
            "plain torch: grid_sample",
        )
    # the first stage of DiNAT-L at 640x640: without dilation, and the largest
    size, heads, kernel = setting.pick((160, 6, 11), (24, 2, 5))
    for dilation in setting.pick((1, 14), (1, 4)):
        attend = partial(_neighborhood, kernel, dilation)
        yield from _both_passes(
            f"neighborhood_attention_2d {size}x{size}, kernel {kernel}, dilation {dilation}",
            partial(_neighborhood_inputs, size, heads, kernel),
            setting,
            attend,
            partial(with_torch_ops, attend),
            "plain torch: dense attention of tiles",
        )


def _deformable(attend: _Attend, levels: tuple[int, ...], value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    shapes = torch.tensor([(side, side) for side in levels])  # on the host, as in the model
    return attend(value, shapes, locations, weights)


def _deformable_inputs(levels: tuple[int, ...]) -> list[Tensor]:
    """Value [1,S,H,D], locations [1,S,H,L,P,2] around each pixel of each level, and weights [1,S,H,L,P]."""
    generator = torch.Generator().manual_seed(0)
    axes = [(torch.arange(side) + 0.5) / side for side in levels]
    places = torch.cat([torch.cartesian_prod(axis, axis).flip(1) for axis in axes])  # (x, y) of every pixel [S,2]
    shape = (1, len(places), HEADS, len(levels), POINTS)
    offsets = SPREAD * torch.randn(*shape, 2, generator=generator) / torch.tensor(levels).view(-1, 1, 1)
    weights = torch.randn(shape, generator=generator).flatten(3).softmax(-1).view(shape)
    return [torch.randn(*shape[:3], CHANNELS, generator=generator), places.view(1, -1, 1, 1, 1, 2) + offsets, weights]


def _neighborhood(kernel: int, dilation: int, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return neighborhood_attention_2d(q, k, v, bias, kernel, dilation, q.shape[-1] ** -0.5)


def _neighborhood_inputs(size: int, heads: int, kernel: int) -> list[Tensor]:
    """Queries, keys and values [1,N,H,W,D] as a projection of all three gives them, and the bias [N,2k-1,2k-1]."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, size, size, 3, heads, CHANNELS, generator=generator).permute(3, 0, 4, 1, 2, 5)
    return [*maps, torch.randn(heads, 2 * kernel - 1, 2 * kernel - 1, generator=generator)]


def _both_passes(
    work: str, make: Callable[[], list[Tensor]], setting: Setting, ours: _Attend, rival: _Attend, rival_name: str
) -> Iterator[Contest]:
    for name, prepare in (("forward", _forward), ("backward", _backward)):
        sides = tuple(partial(prepare, attend, make, setting.device) for attend in (ours, rival))
        calls = (side() for side in sides)
        yield Contest(f"{work}, {name}", 1, MILLISECONDS, *calls, rival_name, _same, sides=sides)


def _forward(attend: _Attend, make: Callable[[], list[Tensor]], device: torch.device) -> Call:
    inputs = [x.to(device) for x in make()]
    attend(*inputs)  # what is loaded at first use is not the op's

    @torch.no_grad()
    def call() -> list[Tensor]:
        return [attend(*inputs)]

    return call


def _backward(attend: _Attend, make: Callable[[], list[Tensor]], device: torch.device) -> Call:
    inputs = [x.to(device).requires_grad_() for x in make()]
    out = attend(*inputs)
    grad = torch.ones_like(out)
    return lambda: list(torch.autograd.grad(out, inputs, grad, retain_graph=True))


def _same(ours: list[Tensor], rival: list[Tensor]) -> None:
    for number, (own, other) in enumerate(zip(ours, rival, strict=True)):
        check_tensors(f"result {number}", own, other, TOLERANCE, SHARE)
