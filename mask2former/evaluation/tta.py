"""Test-time augmentation: the mean over resized and mirrored copies of an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from mask2former.data.transforms import ResizeShortestEdge
from mask2former.utils.errors import UserError

# K classes, h w size of the given image, H W size of the result


class SemanticTTA(nn.Module):
    """Semantic results averaged over sizes and mirror images (MaskFormer's multi-scale evaluation).

    The copies go through the model one by one, and only the sum of their scores is kept.
    """

    def __init__(self, model: nn.Module, min_sizes: Sequence[int], max_size: int, flip: bool):
        """
        Args:
            model: list[dict] -> list[dict] with `sem_seg`, scores [K,H,W] at the asked `height` and `width`.
            min_sizes: shorter side of each copy in pixels (TEST.AUG.MIN_SIZES).
            max_size: limit of the longer side in pixels (TEST.AUG.MAX_SIZE).
            flip: whether each copy is also taken mirrored, left and right (TEST.AUG.FLIP).
        """
        super().__init__()
        self.model, self.flip = model, flip
        self.resizes = [ResizeShortestEdge([size], max_size) for size in min_sizes]

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """``{"sem_seg": [K,H,W]}`` for each input.

        Args:
            batched_inputs: with `image` [3,h,w], and `height` and `width` of the result (default: h and w).
        """
        return [{"sem_seg": self._mean(sample)} for sample in batched_inputs]

    def _mean(self, sample: dict) -> Tensor:
        height, width = sample["image"].shape[-2:]
        sample = {"height": height, "width": width, **sample}
        total, count = None, 0
        for image, mirrored in self._copies(sample["image"]):
            scores = self._scores({**sample, "image": image})
            scores = scores.flip(-1) if mirrored else scores
            total = scores.clone() if total is None else total.add_(scores)  # the model may keep what it returned
            count += 1
        return total.div_(count)

    def _copies(self, image: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """Copies of the image, and whether they are mirrored."""
        for resize in self.resizes:
            copy = resize(tv_tensors.Image(image)).as_subclass(torch.Tensor)
            yield copy, False
            if self.flip:
                yield F.horizontal_flip(copy), True

    def _scores(self, sample: dict) -> Tensor:
        (output,) = self.model([sample])
        if output.get("sem_seg") is None:
            raise UserError(
                "Test-time augmentation averages semantic results, but the model gives none. "
                "Set MODEL.MASK_FORMER.TEST.SEMANTIC_ON True or TEST.AUG.ENABLED False."
            )
        return output["sem_seg"]
