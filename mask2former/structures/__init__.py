"""Containers that carry images, masks, objects and labels between the rooms."""

from mask2former.structures.batch import ImageBatch, pad_batch, padded_size
from mask2former.structures.compact_masks import CompactMasks
from mask2former.structures.instances import Instances
from mask2former.structures.labels import LabelSet, builtin_labels
from mask2former.structures.masks import BitMasks, coco_rle, masks_to_boxes, rle_areas, rle_decode, rle_encode, rle_runs
from mask2former.structures.polygons import Polygons
from mask2former.structures.track_spool import RleSpool, SpooledRles
from mask2former.structures.tracks import Track, TrackedObject, TrackMasks

__all__ = [
    "BitMasks",
    "CompactMasks",
    "ImageBatch",
    "Instances",
    "LabelSet",
    "Polygons",
    "RleSpool",
    "SpooledRles",
    "Track",
    "TrackMasks",
    "TrackedObject",
    "builtin_labels",
    "coco_rle",
    "masks_to_boxes",
    "pad_batch",
    "padded_size",
    "rle_areas",
    "rle_decode",
    "rle_encode",
    "rle_runs",
]
