"""What can be drawn over an image: results and ground truth, each kind in one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mask2former.structures.instances import Instances
from mask2former.structures.masks import rle_encode

# H W image size, K classes, N objects


@dataclass(frozen=True)
class SemanticMap:
    """A class for each pixel: `classes`, integers [H,W]; those outside [0, K) stand for none."""

    classes: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        return self.classes.shape


@dataclass(frozen=True)
class PanopticMap:
    """A segment for each pixel.

    ids       integers [H,W], 0: no segment
    segments  for each segment `id`, `category_id` (class number in [0, K)), `isthing` and, if known, `iscrowd`
    """

    ids: np.ndarray
    segments: Sequence[dict]

    @property
    def size(self) -> tuple[int, int]:
        return self.ids.shape


@dataclass(frozen=True)
class Objects:
    """Objects with masks of their own, which may overlap.

    size     (H, W)
    masks    COCO RLE of that size, compressed; so thousands of objects are kept in little memory
    classes  class numbers in [0, K)
    scores   0 to 1; empty: ground truth, which has none
    crowds   whether each stands for a group that nobody outlined one by one; empty: none does
    ids      of their tracks in a video, in the same order in each frame, with empty masks where one is not to be seen;
             empty: they are no tracks
    """

    size: tuple[int, int]
    masks: Sequence[dict]
    classes: Sequence[int]
    scores: Sequence[float] = ()
    crowds: Sequence[bool] = ()
    ids: Sequence[int] = ()


Drawable = SemanticMap | PanopticMap | Objects

_TYPES = {"panoptic": PanopticMap, "instances": Objects, "semantic": SemanticMap}
# the most telling kind first
KINDS = tuple(_TYPES)


def kind_of(drawable: Drawable) -> str:
    """Which of `KINDS` it is."""
    return next(kind for kind, made in _TYPES.items() if isinstance(drawable, made))


def result_of(output: dict, kind: str, threshold: float = 0.5) -> Drawable | None:
    """One kind of a model's results for an image, None where the output lacks it.

    Args:
        output: any of ``sem_seg`` (scores [K,H,W]), ``panoptic_seg`` ((ids [H,W], segments_info)), ``instances``.
        kind: one of `KINDS`.
        threshold: smallest score of an instance that is taken.
    """
    if kind == "panoptic" and output.get("panoptic_seg") is not None:
        ids, segments = output["panoptic_seg"]
        return PanopticMap(to_numpy(ids), segments)
    if kind == "instances" and output.get("instances") is not None:
        return objects_of(output["instances"], threshold)
    if kind == "semantic" and output.get("sem_seg") is not None:
        return SemanticMap(to_numpy(output["sem_seg"].max(0).indices.to(torch.int32)))
    return None


def objects_of(instances: Instances, threshold: float = 0.0) -> Objects:
    """Predicted instances as objects.

    Args:
        instances: with `pred_masks` [N,H,W] (non-zero is inside), `pred_classes` [N] and `scores` [N].
        threshold: smallest score that is taken.
    """
    if len(instances) == 0:
        return Objects(instances.image_size, (), ())
    kept = instances[instances.scores >= threshold]
    masks = [rle_encode(mask > 0) for mask in kept.pred_masks]
    return Objects(kept.image_size, masks, kept.pred_classes.tolist(), kept.scores.tolist())


def tracks_in_frame(output: dict, t: int, threshold: float = 0.5) -> Objects | None:
    """The tracks of a video model's result that are in frame `t`; None where the output has no tracks.

    Args:
        output: with `image_size` (H, W), `pred_scores` [N], `pred_labels` [N] and `pred_masks`, N tracks of T masks
            [H,W].
        t: number of the frame, from 0.
        threshold: smallest score of a track that is taken.
    """
    if "pred_masks" not in output:
        return None
    masks = [to_numpy(track[t]) for track in output["pred_masks"]]
    scores, labels = (torch.as_tensor(output[key]).tolist() for key in ("pred_scores", "pred_labels"))
    kept = [i for i, mask in enumerate(masks) if scores[i] >= threshold and mask.any()]
    rles, classes, scores = [rle_encode(masks[i]) for i in kept], [labels[i] for i in kept], [scores[i] for i in kept]
    return Objects(tuple(output["image_size"]), rles, classes, scores)


def to_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)
