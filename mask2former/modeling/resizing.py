"""Maps at stride 4 brought to the wanted size: the published chain of resizes as one, some rows at a time.

The chain goes up to the padded size, cuts the padding off, and resizes to the wanted size, bilinearly both times
without aligned corners. Each step is linear and treats rows and columns apart. So a row of the result is a mean of at
most 2 * 2 rows of the maps, its taps, and a column likewise: nothing of the padded size is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# N maps, h w map size (stride 4 of the padded batch), H W wanted size, R rows of a chunk, T taps

CHUNK = 2**20  # numbers of a chunk on a CPU: 4 MB in float32 stay in its cache
LARGE_CHUNK = 2**26  # elsewhere, where few launches count


@dataclass(frozen=True)
class Taps:
    """How an axis is resized: out[i] = sum over t of weight[i,t] * given[index[i,t]].

    Both are [size,T] on the host, the weights float64.
    """

    index: Tensor
    weight: Tensor

    @classmethod
    def bilinear(cls, given: int, size: int) -> Taps:
        """Those of F.interpolate without aligned corners."""
        place = torch.arange(size, dtype=torch.float64, device="cpu")
        if given == size:
            return cls(place.long()[:, None], torch.ones_like(place)[:, None])
        place = ((place + 0.5) * (given / size) - 0.5).clamp(min=0)
        first = place.long().clamp(max=given - 1)
        share = place - first
        index = torch.stack([first, (first + 1).clamp(max=given - 1)], 1)
        return cls(index, torch.stack([1 - share, share], 1))

    def after(self, earlier: Taps) -> Taps:
        """Both steps as one."""
        weight = self.weight[:, :, None] * earlier.weight[self.index]
        return Taps(earlier.index[self.index].flatten(1), weight.flatten(1))

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Index and weight, as compiled functions take them."""
        return self.index, self.weight

    def part(self, rows: slice) -> Taps:
        """Those of some rows of the result."""
        return Taps(self.index[rows], self.weight[rows])

    def narrowed(self) -> tuple[slice, Taps]:
        """What they read of the given rows, and the taps where only this is given."""
        low, high = int(self.index.min()), int(self.index.max())
        return slice(low, high + 1), Taps(self.index - low, self.weight)

    def resize(self, maps: Tensor, dim: int) -> Tensor:
        """``maps`` with the axis ``dim`` resized."""
        index = self.index.to(maps.device, non_blocking=True)
        shape = [-1 if axis == dim else 1 for axis in range(maps.dim())]
        out = None
        for t, weight in enumerate(self.weight.to(maps.dtype).to(maps.device, non_blocking=True).unbind(1)):
            tap = maps.index_select(dim, index[:, t])
            out = tap.mul_(weight.view(shape)) if out is None else out.addcmul_(tap, weight.view(shape))
        return out


def resample(maps: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """Maps [N,h,w] -> [R,W,N] in float32, or float64 where they are.

    The maps are laid side by side, so that each tap of a pixel, and all that they say of it, is memory in a row.
    """
    needed, rows = rows.narrowed()
    pixels = maps[:, needed].permute(1, 2, 0).to(torch.promote_types(maps.dtype, torch.float32)).contiguous()
    return columns.resize(rows.resize(pixels, 0), 1)


@dataclass(frozen=True)
class Geometry:
    """(height, width) of the padded batch, of the image inside it, and of the wanted result."""

    padded: tuple[int, int]
    image: tuple[int, int]
    output: tuple[int, int]

    def to_output(self, maps: Tensor) -> Tensor:
        """[N,h,w] -> [N,*output], of the same type."""
        out = maps.new_empty(len(maps), *self.output)
        rows, columns = self.taps(maps)
        for chunk in self.chunks(maps):
            out[:, chunk] = resample(maps, rows.part(chunk), columns).permute(2, 0, 1)
        return out

    def image_taps(self, maps: Tensor) -> tuple[Taps, Taps]:
        """Rows and columns: from the maps to the image."""
        sizes = zip(maps.shape[1:], self.padded, self.image)
        return tuple(Taps.bilinear(size, padded).part(slice(image)) for size, padded, image in sizes)

    def output_taps(self) -> tuple[Taps, Taps]:
        """From the image to the result."""
        return tuple(Taps.bilinear(image, output) for image, output in zip(self.image, self.output))

    def taps(self, maps: Tensor) -> tuple[Taps, Taps]:
        """From the maps to the result."""
        return tuple(last.after(first) for first, last in zip(self.image_taps(maps), self.output_taps()))

    def chunks(self, maps: Tensor) -> Iterator[slice]:
        """Rows of the result that are made at a time; none where there are no maps."""
        if not len(maps):
            return
        height, width = self.output
        step = max(1, (CHUNK if maps.device.type == "cpu" else LARGE_CHUNK) // (width * len(maps)))
        for start in range(0, height, step):
            yield slice(start, min(start + step, height))
