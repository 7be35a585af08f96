"""What the meta-architectures share: images become a normalised, padded batch on the model's device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mask2former.structures import ImageBatch, pad_batch

# T frames of a clip, 1 for images; C channels


class ImageModel(nn.Module):
    """pixel_mean and pixel_std per channel, 0..255; batches are padded to a multiple of ``size_divisibility``."""

    def __init__(self, pixel_mean: Sequence[float], pixel_std: Sequence[float], size_divisibility: int):
        super().__init__()
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            per_channel = torch.tensor([float(v) for v in values]).view(-1, 1, 1)
            self.register_buffer(name, per_channel, persistent=False)
        self.size_divisibility = size_divisibility

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def _batch(self, clips: Sequence[Sequence[Tensor]]) -> ImageBatch:
        """From clips of T frames [C,H,W]; padded with zeros after normalising, so that padding is the mean colour."""
        return pad_batch([self._normalized(frames) for frames in clips], self.size_divisibility)

    def _normalized(self, frames: Sequence[Tensor]) -> Tensor:
        """[T,C,H,W]"""
        for frame in frames:
            if len(frame) != len(self.pixel_mean):
                raise ValueError(
                    f"image has shape {tuple(frame.shape)}, expected [{len(self.pixel_mean)},H,W]: "
                    "one channel for each value of MODEL.PIXEL_MEAN."
                )
        clip = frames[0][None] if len(frames) == 1 else torch.stack(list(frames))
        return (clip.to(self.device, non_blocking=True).to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std
