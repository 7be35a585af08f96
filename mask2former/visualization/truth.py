"""Ground truth in a form that can be drawn: from a record's files and annotations, or from a training sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mask2former.data.reading import read_mask, read_panoptic
from mask2former.structures.masks import coco_rle, rle_encode
from mask2former.visualization.drawable import KINDS, Drawable, Objects, PanopticMap, SemanticMap

# kind -> the keys of a record that tell it
_FIELDS = {
    "panoptic": ("pan_seg_file_name", "segments_info"),
    "instances": ("annotations", "height", "width"),
    "semantic": ("sem_seg_file_name",),
}


def truth_fields(record: dict) -> dict:
    """What :func:`ground_truth` reads of a record, without images and other large values."""
    return {key: record[key] for keys in _FIELDS.values() for key in keys if key in record}


def ground_truth(record: dict, preferred: str | None = None) -> Drawable | None:
    """The ground truth of a record, at the image's original size; None where it has none.

    Args:
        record: any of `pan_seg_file_name` with `segments_info`; `annotations` with `height` and `width`;
            `sem_seg_file_name`. Categories are class numbers.
        preferred: the kind wanted, one of `KINDS`; where the record lacks it, or without it, the first of `KINDS`
            that it has.

    Raises:
        UserError: a file cannot be read, or a mask does not fit the image.
    """
    known = [kind for kind in KINDS if all(record.get(key) is not None for key in _FIELDS[kind])]
    if not known:
        return None
    kind = preferred if preferred in known else known[0]
    if kind == "panoptic":
        return PanopticMap(read_panoptic(record["pan_seg_file_name"]), record["segments_info"])
    if kind == "semantic":
        return SemanticMap(read_mask(record["sem_seg_file_name"]))
    return _objects(record)


def _objects(record: dict) -> Objects:
    size, annotations = (record["height"], record["width"]), record["annotations"]
    return Objects(
        size,
        [coco_rle(annotation["segmentation"], size) for annotation in annotations],
        [annotation["category_id"] for annotation in annotations],
        crowds=[bool(annotation.get("iscrowd", 0)) for annotation in annotations],
    )


def sample_truth(sample: dict) -> Objects:
    """The targets of a training sample, one object for each mask that the model learns.

    Args:
        sample: with `instances`, whose `gt_masks` [N,h,w], of the size of the sample's `image`, are a boolean tensor
            or a container with one as `tensor`, and whose `gt_classes` [N] are class numbers.
    """
    instances = sample["instances"]
    each = (instances.gt_masks[i : i + 1] for i in range(len(instances)))  # one at a time at full size
    masks = [rle_encode(getattr(mask, "tensor", mask)[0]) for mask in each]
    return Objects(instances.image_size, masks, instances.gt_classes.tolist())


# ---------------------------------------------------------------- videos


def video_truth(record: dict, frames: Sequence[int]) -> list[Objects]:
    """The ground truth of some frames of a video, one object for each track of the whole video.

    Args:
        record: with `annotations`, a list of objects for each frame, `height` and `width`.
        frames: which are wanted.
    """
    size, found = (record["height"], record["width"]), record["annotations"]
    tracks = {a["id"]: a for frame in found for a in frame}
    ids = sorted(tracks)
    empty = rle_encode(np.zeros(size, bool))
    truths = []
    for t in frames:
        here = {a["id"]: coco_rle(a["segmentation"], size) for a in found[t]}
        masks, classes = [here.get(i, empty) for i in ids], [tracks[i]["category_id"] for i in ids]
        truths.append(Objects(size, masks, classes, crowds=[bool(tracks[i].get("iscrowd", 0)) for i in ids], ids=ids))
    return truths


def clip_truth(sample: dict) -> list[Objects]:
    """As `sample_truth`, for each frame of a clip's training sample; `gt_ids` are shown."""
    ids = torch.stack([instances.gt_ids for instances in sample["instances"]]).amax(0).tolist()  # -1: not to be seen
    return [replace(sample_truth({"instances": instances}), ids=ids) for instances in sample["instances"]]
