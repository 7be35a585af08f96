"""The folders of ADE20K and the masks in its instance PNG files, for the scripts that read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _prepare import require

from mask2former.data.reading import read_image
from mask2former.structures import builtin_labels
from mask2former.utils.errors import UserError

SPLITS = {"train": "training", "val": "validation"}  # name in the JSON files -> folder
SCENE_LAYOUT = "ADEChallengeData2016/{images,annotations}/{training,validation}"
SCENE_SOURCE = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
INSTANCE_LAYOUT = "ADEChallengeData2016/annotations_instance/{training,validation}"
INSTANCE_SOURCE = "http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar"


def files_of(folder: Path, suffix: str, layout: str, source: str) -> list[Path]:
    """The files of a folder, sorted; a folder that is missing or has none is a UserError (see `require`)."""
    found = sorted(require(folder, layout, source).glob(f"*{suffix}"))
    if not found:
        raise UserError(f"{folder} holds no *{suffix}. Expected {layout}; download it from {source}.")
    return found


def image_and_instances(ade: Path, split: str) -> list[tuple[Path, Path]]:
    """(image, instance PNG) of each image of a split, "training" or "validation", below ADEChallengeData2016."""
    images = files_of(ade / "images" / split, ".jpg", SCENE_LAYOUT, SCENE_SOURCE)
    folder = require(ade / "annotations_instance" / split, INSTANCE_LAYOUT, INSTANCE_SOURCE)
    return [(image, folder / f"{image.stem}.png") for image in images]


def instance_masks(path: Path) -> tuple[tuple[int, int], list[tuple[int, np.ndarray]]]:
    """The things of an instance PNG, whose red channel is the instance category 1..100 and green the instance's number.

    Returns:
        (H, W), and per instance its class in SceneParsing-150 counted from 0, and its boolean mask [H,W]. The JSON
        files of instances and of panoptic segments both use these class numbers as category ids.

    Raises:
        UserError: a broken file, a category outside 1..100, or an instance with pixels of two categories.
    """
    rgb = read_image(path)
    categories, numbers = rgb[..., 0], rgb[..., 1]
    scene_ids = builtin_labels("ade20k_instance_train").dataset_ids
    found = []
    for number in np.unique(numbers[numbers > 0]):
        mask = numbers == number
        of_mask = np.unique(categories[mask])
        if len(of_mask) != 1 or not 1 <= of_mask[0] <= len(scene_ids):
            raise UserError(
                f"Instance {number} of {path} (green channel) has the categories {of_mask.tolist()} (red channel); "
                f"expected one from 1 to {len(scene_ids)}. Download it again from {INSTANCE_SOURCE}."
            )
        found.append((scene_ids[int(of_mask[0]) - 1], mask))
    return rgb.shape[:2], found


def box_of(mask: np.ndarray) -> list[int]:
    """[x, y, width, height] in pixels of a boolean mask [H,W] that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(v) for v in (columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1)]
