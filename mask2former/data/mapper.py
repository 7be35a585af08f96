"""One record -> one input of the model, put together from reading, transforms and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torchvision import tv_tensors

from mask2former.data.datasets.checks import read_checked_image
from mask2former.data.datasets.video_records import is_video
from mask2former.data.reading import read_image
from mask2former.data.video_frames import VideoFrames

# H, W: size of the file; h, w: size after the transform


def image_tensor(array: np.ndarray) -> tv_tensors.Image:
    """uint8 RGB [H,W,3] -> Image [3,H,W] on the same memory; torchvision resizes channels-last 3 times faster."""
    return tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1))


def plain_image(image: torch.Tensor, format: str) -> torch.Tensor:
    """RGB [3,h,w] -> contiguous tensor with the channels in the order of `format`, "RGB" or "BGR"."""
    pixels = image.as_subclass(torch.Tensor)
    return pixels.contiguous() if format == "RGB" else pixels.flip(0).contiguous()  # 20 times faster than an index


class Annotation(Protocol):
    """What a mapper trains from: see SemanticAnnotation, PanopticAnnotation and InstanceAnnotation in targets.py."""

    source: str
    """The key that a record must have."""

    def read(self, record: dict, size: tuple[int, int]) -> tuple[tv_tensors.TVTensor, Any]:
        """The part that moves with an image of `size` (H, W), and the part that does not."""

    def targets(self, moved: tv_tensors.TVTensor, rest: Any) -> dict[str, Any]:
        """Entries of the sample, "instances" among them, from what the transform made of `read`'s result."""


class TrainMapper:
    """Training sample of any data set: read image and annotation, move them together, make targets.

    Args:
        annotation: what the targets are made from.
        transform: takes (Image uint8 [3,H,W] RGB, what `annotation.read` gives) and returns both, moved together.
        image_format: "RGB" or "BGR".
        compact: leave gt_masks as CompactMasks; else they are a boolean tensor [N,h,w].
    """

    def __init__(self, annotation: Annotation, transform: Callable, image_format: str = "RGB", compact: bool = False):
        self.annotation, self.transform, self.image_format = annotation, transform, image_format
        self.compact = compact

    def __call__(self, record: dict) -> dict:
        """The record with "image" uint8 [3,h,w] and the targets; lists of annotations stay behind.

        "height" and "width" stay those of the file. A broken file or a wrong annotation is a UserError.
        """
        pixels = read_checked_image(record)
        moved, rest = self.annotation.read(record, pixels.shape[:2])
        image, moved = self.transform(image_tensor(pixels), moved)
        kept = {key: value for key, value in record.items() if key not in ("annotations", "segments_info")}
        targets = self.annotation.targets(moved, rest)
        if not self.compact:
            targets["instances"].gt_masks = targets["instances"].gt_masks.tensor
        return {**kept, "image": plain_image(image, self.image_format), **targets}


class ImageTransform:
    """An RGB picture as the model takes it in evaluation.

    Args:
        transform: takes Image uint8 [3,H,W] RGB and returns [3,h,w].
        image_format: "RGB" or "BGR".
    """

    def __init__(self, transform: Callable, image_format: str = "RGB"):
        self.transform, self.image_format = transform, image_format

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """uint8 RGB [H,W,3] -> uint8 [3,h,w] in the model's channel order."""
        return plain_image(self.transform(image_tensor(np.ascontiguousarray(image))), self.image_format)


class TestMapper:
    """Evaluation input: the record with "image" uint8 [3,h,w], of a video `VideoFrames`.

    "height" and "width" stay those of the file.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, prepare: ImageTransform):
        self.prepare = prepare

    def __call__(self, record: dict) -> dict:
        if is_video(record):
            return {**record, "image": VideoFrames(record, self.prepare)}
        return {**record, "image": self.prepare(read_image(record["file_name"]))}
