"""One record -> one input of the model, put together from reading, transforms and targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torchvision import tv_tensors

from mask2former.data.datasets.checks import check_mask
from mask2former.data.reading import read_image, read_mask
from mask2former.data.targets import semantic_instances

# H, W: size of the file; h, w: size after the transform


def image_tensor(array: np.ndarray) -> tv_tensors.Image:
    """uint8 RGB [H,W,3] -> Image [3,H,W] on the same memory; torchvision resizes channels-last 3 times faster."""
    return tv_tensors.Image(torch.from_numpy(array).permute(2, 0, 1))


def plain_image(image: torch.Tensor, format: str) -> torch.Tensor:
    """RGB [3,h,w] -> contiguous tensor with the channels in the order of `format`, "RGB" or "BGR"."""
    pixels = image.as_subclass(torch.Tensor)
    return pixels.contiguous() if format == "RGB" else pixels[[2, 1, 0]].contiguous()


class SemanticMapper:
    """Training sample of a semantic data set: the mapper "mask_former_semantic".

    Args:
        transform: takes (Image uint8 [3,H,W] RGB, Mask int32 [H,W]) and returns both, moved together.
        num_classes: ids in the mask file are below it, or `ignore_label`.
        ignore_label: id of pixels without label.
        image_format: "RGB" or "BGR".
    """

    def __init__(self, transform: Callable, num_classes: int, ignore_label: int, image_format: str = "RGB"):
        self.transform, self.image_format = transform, image_format
        self.num_classes, self.ignore_label = num_classes, ignore_label

    def __call__(self, record: dict) -> dict:
        """The record with "image" uint8 [3,h,w], "sem_seg" int32 [h,w] and "instances" (see targets.py).

        "height" and "width" stay those of the file. A broken file or a wrong mask is a UserError.
        """
        image = read_image(record["file_name"])
        mask = read_mask(record["sem_seg_file_name"])
        check_mask(mask, image.shape[:2], self.num_classes, self.ignore_label, record["sem_seg_file_name"])
        image, sem_seg = self.transform(image_tensor(image), tv_tensors.Mask(torch.from_numpy(mask)))
        sem_seg = sem_seg.as_subclass(torch.Tensor).contiguous()
        return {
            **record,
            "image": plain_image(image, self.image_format),
            "sem_seg": sem_seg,
            "instances": semantic_instances(sem_seg, self.ignore_label),
        }


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
    """Evaluation input: the record with "image" uint8 [3,h,w]; "height" and "width" stay those of the file."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, prepare: ImageTransform):
        self.prepare = prepare

    def __call__(self, record: dict) -> dict:
        return {**record, "image": self.prepare(read_image(record["file_name"]))}
