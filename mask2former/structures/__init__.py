"""Containers that carry images, masks, objects and labels between the rooms."""

from mask2former.structures.batch import ImageBatch, pad_batch, padded_size
from mask2former.structures.cropped_masks import CroppedMasks
from mask2former.structures.instances import Instances
from mask2former.structures.labels import LabelSet, builtin_labels
from mask2former.structures.masks import BitMasks, masks_to_boxes, rle_decode, rle_encode

__all__ = [
    "BitMasks",
    "CroppedMasks",
    "ImageBatch",
    "Instances",
    "LabelSet",
    "builtin_labels",
    "masks_to_boxes",
    "pad_batch",
    "padded_size",
    "rle_decode",
    "rle_encode",
]
