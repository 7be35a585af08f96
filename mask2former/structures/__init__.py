"""Containers that carry images, masks, objects and labels between the rooms."""

from mask2former.structures.batch import ImageBatch, pad_batch, pad_masks, padded_size
from mask2former.structures.instances import Instances
from mask2former.structures.labels import LabelSet, builtin_labels
from mask2former.structures.masks import BitMasks, masks_to_boxes, rle_decode, rle_encode

__all__ = [
    "BitMasks",
    "ImageBatch",
    "Instances",
    "LabelSet",
    "builtin_labels",
    "masks_to_boxes",
    "pad_batch",
    "pad_masks",
    "padded_size",
    "rle_decode",
    "rle_encode",
]
