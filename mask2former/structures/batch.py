"""A batch of images or clips of different sizes as one tensor that remembers the sizes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

# B batch, T frames, C channels, H W padded size


@dataclass(frozen=True)
class ImageBatch:
    """Images [B,T,C,H,W], zero-padded right and below; ``sizes`` holds the (height, width) before padding."""

    tensor: Tensor
    sizes: list[tuple[int, int]]

    @property
    def padded_size(self) -> tuple[int, int]:
        return tuple(self.tensor.shape[-2:])


def pad_batch(clips: list[Tensor], divisor: int) -> ImageBatch:
    """Stack clips [T,C,h,w] of equal T and C into an :class:`ImageBatch` whose H and W are multiples of ``divisor``.

    A divisor below 2 pads to the largest size in the batch only.
    """
    sizes = [tuple(c.shape[-2:]) for c in clips]
    padded = padded_size(sizes, divisor)
    if len(clips) == 1 and sizes[0] == padded:
        return ImageBatch(clips[0][None], sizes)
    batch = clips[0].new_zeros(len(clips), *clips[0].shape[:2], *padded)
    for slot, clip in zip(batch, clips):
        slot[..., : clip.shape[-2], : clip.shape[-1]].copy_(clip)
    return ImageBatch(batch, sizes)


def padded_size(sizes: list[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """The largest height and the largest width of ``sizes``, each rounded up to a multiple of ``divisor``."""
    h, w = (-(-max(s[axis] for s in sizes) // max(divisor, 1)) * max(divisor, 1) for axis in range(2))
    return h, w
