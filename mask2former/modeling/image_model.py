"""What the meta-architectures share: images become a normalised, padded batch on the model's device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mask2former.structures import ImageBatch, pad_batch

# C channels


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

    def _batch(self, batched_inputs: list[dict]) -> ImageBatch:
        """Normalise on the device and pad with zeros, so that padding is the mean colour."""
        clips = []
        for x in batched_inputs:
            if len(x["image"]) != len(self.pixel_mean):
                raise ValueError(
                    f"image has shape {tuple(x['image'].shape)}, expected [{len(self.pixel_mean)},H,W]: "
                    "one channel for each value of MODEL.PIXEL_MEAN."
                )
            image = x["image"].to(self.device, non_blocking=True).to(self.pixel_mean.dtype)
            clips.append(((image - self.pixel_mean) / self.pixel_std)[None])
        return pad_batch(clips, self.size_divisibility)
