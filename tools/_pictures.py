"""Records and training samples as pictures; of a video or a clip, frames side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import spread

from mask2former.data import read_image
from mask2former.data.datasets.video_records import is_video
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.visualization import clip_truth, draw, ground_truth, sample_truth, video_truth

_FRAMES, _GAP = 4, 4  # frames of a video that are shown; white pixels between two


def name_of(record: dict) -> str:
    """What a picture of a record or sample is called after: its file, or the folder of its frames."""
    if is_video(record):
        first = Path(record["file_names"][0])
        return first.parent.name or first.stem
    return Path(record["file_name"]).stem


def record_picture(record: dict, labels: LabelSet) -> np.ndarray:
    """The ground truth over the image, or over a few frames of the video, uint8 [H,W,3].

    Raises:
        UserError: a file cannot be read, or there is no ground truth.
    """
    if is_video(record):
        if "annotations" not in record:
            raise UserError(f"The video of {record['file_names'][0]} has no ground truth to draw.")
        chosen = spread(len(record["file_names"]), _FRAMES)
        images = [read_image(record["file_names"][t]) for t in chosen]
        sized = {"height": images[0].shape[0], "width": images[0].shape[1], **record}
        return _side_by_side([draw(*pair, labels) for pair in zip(images, video_truth(sized, chosen), strict=True)])
    image = read_image(record["file_name"])
    truth = ground_truth({"height": image.shape[0], "width": image.shape[1], **record})
    if truth is None:
        raise UserError(f"{record['file_name']} has no ground truth to draw.")
    return draw(image, truth, labels)


def sample_picture(sample: dict, labels: LabelSet, image_format: str) -> np.ndarray:
    """The targets of a training sample over its image, or the frames of its clip, uint8 [h,w,3].

    Args:
        sample: of a training mapper.
        labels: names and colours.
        image_format: channel order of the sample's images, "RGB" or "BGR".
    """
    clip = isinstance(sample["image"], (list, tuple))
    truths = clip_truth(sample) if clip else [sample_truth(sample)]
    images = sample["image"] if clip else [sample["image"]]
    return _side_by_side(
        [draw(_rgb(image, image_format), truth, labels) for image, truth in zip(images, truths, strict=True)]
    )


def _rgb(image, image_format: str) -> np.ndarray:
    pixels = image.permute(1, 2, 0).numpy()
    return np.ascontiguousarray(pixels[:, :, ::-1] if image_format == "BGR" else pixels)


def _side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    gap = np.full((len(pictures[0]), _GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)
