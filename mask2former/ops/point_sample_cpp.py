"""Values at points, of CPU tensors, by the compiled library; see ``csrc/point_sample.cpp`` and ``mask_sample.cpp``.

What they compute is defined by plain torch in ``point_sample.py``, which is also what runs elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mask2former.ops.cpp import plain, run

# N maps, C channels, H W map size, K candidates, P points, S stored pixels

PIXELS = {torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64}  # types that masks are read from


class SampleMaps(torch.autograd.Function):
    """Bilinear values [N,P] of maps [N,H,W] at points [N,P,2]; keeps the points alone for the backward pass."""

    @staticmethod
    def forward(ctx, maps: Tensor, points: Tensor) -> Tensor:
        ctx.save_for_backward(points)
        ctx.size = tuple(maps.shape[1:])
        return sample_maps_forward(maps, points)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        return sample_maps_backward(grad, *ctx.saved_tensors, ctx.size), None


def sample_maps_forward(maps: Tensor, points: Tensor) -> Tensor:
    """[N,P], see SampleMaps."""
    _check_points(points, len(maps))
    out = maps.new_empty(points.shape[:2])
    _run("sample_maps_forward", maps.contiguous(), points.contiguous(), out, *maps.shape, points.shape[1])
    return out


def sample_maps_backward(grad: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Gradient of the maps of ``size`` (H, W), given that of their values."""
    maps = grad.new_empty(len(grad), *size)
    _run("sample_maps_backward", grad.contiguous(), points.contiguous(), maps, *maps.shape, points.shape[1])
    return maps


def sample_pixels(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values [N*T,P,C] of maps [N*T,H,W,C] at points [N,P,2], which T maps one after the other share."""
    count, height, width, channels = maps.shape
    frames = max(1, count // max(1, len(points)))
    if count % frames:
        raise ValueError(f"{count} maps cannot share {len(points)} images' points")
    _check_points(points, count // frames)
    out = maps.new_empty(count, points.shape[1], channels)
    sizes = (count, height, width, channels, points.shape[1], frames)
    _run("sample_pixels", maps.contiguous(), points.contiguous(), out, *sizes)
    return out


def least_certain(maps: Tensor, candidates: Tensor, count: int, out: Tensor) -> None:
    """Of each map's candidates [N,K,2] the ``count`` with values nearest to zero, written to the start of out [N,P,2].

    Maps [N,H,W]. The points are in the order of the candidates; of equals the first are taken.
    """
    _check_points(candidates, len(maps))
    sizes = (*maps.shape, candidates.shape[1], count, out.shape[1])
    _run("least_certain", maps.contiguous(), candidates.contiguous(), out, *sizes)


def sample_mask(pixels: Tensor, places: Tensor, size: tuple[int, int], points: Tensor) -> Tensor:
    """As :func:`mask2former.ops.sample_mask`, from pixels of a type among PIXELS."""
    if places.dtype != torch.int64 or places.shape[1:] != (6,):
        raise ValueError(f"places must be int64 [N,6], got {places.dtype} {tuple(places.shape)}")
    _check_points(points[None] if points.dim() == 2 else points, 1 if points.dim() == 2 else len(places))
    out = points.new_empty(len(places), points.shape[-2])
    sizes = (len(pixels), *out.shape, *size, points.dim() == 2, pixels.element_size())
    tensors = (pixels.contiguous(), places.contiguous(), points.contiguous(), out)
    run("sample_mask", points.dtype, *tensors, *plain(*sizes))
    return out


def _check_points(points: Tensor, count: int) -> None:
    if points.dim() != 3 or (len(points), points.shape[2]) != (count, 2):
        raise ValueError(f"points must be [N={count},P,2], got shape {tuple(points.shape)}")


def _run(function: str, maps: Tensor, *arguments: Tensor | int) -> None:
    run(function, maps.dtype, maps.detach(), *arguments)
