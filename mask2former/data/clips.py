"""Clips: which frames of a video are trained on, and the sample that they make.

An image is a clip of one frame; a clip of several frames is made of it by moving it a little from frame to frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mask2former.data.datasets.checks import read_checked_image
from mask2former.data.datasets.video_records import frame_record, is_video
from mask2former.data.mapper import plain_image
from mask2former.data.targets import clip_instances, object_layers
from mask2former.utils.errors import UserError

# T frames of a clip, N objects, L layers; H, W: size of the files; h, w: size after the transform


@dataclass(frozen=True)
class ClipSampling:
    """Which frames make a training clip (Mask2Former for video, sec. 3.1).

    num      T, INPUT.SAMPLING_FRAME_NUM
    reach    largest distance in frames from the reference frame, INPUT.SAMPLING_FRAME_RANGE
    shuffle  leave the frames in random order, INPUT.SAMPLING_FRAME_SHUFFLE
    """

    num: int
    reach: int
    shuffle: bool = False

    def __post_init__(self) -> None:
        for key, value, least in (("NUM", self.num, 1), ("RANGE", self.reach, 0)):
            if value < least:
                raise UserError(f"INPUT.SAMPLING_FRAME_{key} is {value}; expected {least} or more.")

    def draw(self, length: int) -> list[int]:
        """A random reference frame of a video of `length` frames and others within `reach` of it, T in all.

        They are ascending unless shuffled. No frame comes again before each within reach has come once.
        """
        reference = int(torch.randint(length, ()))
        near = range(max(0, reference - self.reach), min(length, reference + self.reach + 1))
        others = [t for t in near if t != reference] or [reference]
        rounds = -(-(self.num - 1) // len(others))
        drawn = [others[i] for _ in range(rounds) for i in torch.randperm(len(others)).tolist()]
        frames = sorted([reference, *drawn[: self.num - 1]])
        return [frames[i] for i in torch.randperm(self.num).tolist()] if self.shuffle else frames


class ClipMapper:
    """Training sample of a clip: choose frames, read them and their objects, move them together, make targets.

    Args:
        sampling: which frames.
        transform: takes (Image uint8 [T,3,H,W] RGB, Mask [T,L,H,W]) and returns both, all frames moved alike.
        image_format: "RGB" or "BGR".
        compact: leave gt_masks as CompactMasks; else they are boolean tensors [N,h,w].
    """

    def __init__(self, sampling: ClipSampling, transform: Callable, image_format: str = "RGB", compact: bool = False):
        self.sampling, self.transform, self.image_format = sampling, transform, image_format
        self.compact = compact
        # what a picture that stands for a video may move from frame to frame: a few degrees, a tenth of its size
        self.motion = v2.RandomAffine(15, (0.1, 0.1), (0.85, 1.2), interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, record: dict) -> dict:
        """The record with its frames and targets; lists of annotations stay behind.

        Args:
            record: of a video; or of an image with "annotations", which becomes a clip by small random rotations,
                shifts and scalings, one for each frame.

        Returns:
            "image": T tensors uint8 [3,h,w]; "instances": T Instances of the same N objects in the same order, with
            gt_classes, gt_masks and gt_ids, the id of the track, -1 where the mask is empty in that frame; "file_names"
            [T]. Objects that are in no frame after the transform are left out; N may be 0. "height" and "width" stay
            those of the file.

        Raises:
            UserError: a broken file, a frame of another size than its record says, or a wrong annotation.
        """
        if is_video(record):
            frames = [frame_record(record, t) for t in self.sampling.draw(len(record["file_names"]))]
            objects = _objects(frames)
            images, masks = _read(frames, list(objects))
        else:
            numbered = [{**annotation, "id": i} for i, annotation in enumerate(record["annotations"], 1)]
            frames = [{**record, "annotations": numbered}] * self.sampling.num
            objects = _objects(frames[:1])
            images, masks = self._moving(*_read(frames[:1], list(objects)))
        images, masks = self.transform(images, masks)
        classes = torch.tensor([*objects.values()], dtype=torch.int64)
        instances = clip_instances(
            masks.as_subclass(torch.Tensor), classes, torch.tensor([*objects], dtype=torch.int64)
        )
        if not self.compact:
            for frame in instances:
                frame.gt_masks = frame.gt_masks.tensor
        kept = {key: value for key, value in record.items() if key not in ("annotations", "file_name")}
        return {
            **kept,
            "file_names": [frame["file_name"] for frame in frames],
            "image": [plain_image(image, self.image_format) for image in images],
            "instances": instances,
        }

    def _moving(self, image: tv_tensors.Image, mask: tv_tensors.Mask) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """A clip of one picture, [1,3,H,W] and [1,L,H,W] -> [T,3,H,W] and [T,L,H,W]."""
        if self.sampling.num == 1:
            return image, mask
        frames = [self.motion(image, mask) for _ in range(self.sampling.num)]
        images, masks = (torch.cat([part.as_subclass(torch.Tensor) for part in parts]) for parts in zip(*frames))
        return tv_tensors.Image(images), tv_tensors.Mask(masks)


def _objects(frames: Sequence[dict]) -> dict[int, int]:
    """Track id -> class number of the tracks, crowds left out, that are in one of the frames; in order of their ids."""
    found = {a["id"]: a["category_id"] for frame in frames for a in frame["annotations"] if not a.get("iscrowd")}
    return dict(sorted(found.items()))


def _read(frames: Sequence[dict], tracks: Sequence[int]) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Images [T,3,H,W] and masks [T,L,H,W] with k + 1 where the k-th of `tracks` is, 0 elsewhere.

    A track has one mask in a frame; where a file gives it several, they are one object.
    """
    number = {track: k for k, track in enumerate(tracks, 1)}
    images, layers = [], []
    for frame in frames:
        pixels = read_checked_image(frame)
        objects = [annotation for annotation in frame["annotations"] if not annotation.get("iscrowd")]
        numbers = [number[annotation["id"]] for annotation in objects]
        images.append(pixels)
        layers.append(object_layers(objects, pixels.shape[:2], frame["file_name"], numbers))
    depth = max(len(layer) for layer in layers)
    padded = [np.pad(layer, ((0, depth - len(layer)), (0, 0), (0, 0))) for layer in layers]
    # torchvision resizes channels-last 3 times faster
    return (
        tv_tensors.Image(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)),
        tv_tensors.Mask(torch.from_numpy(np.stack(padded))),
    )
