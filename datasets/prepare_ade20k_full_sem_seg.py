#!/usr/bin/env python
"""Images and semantic maps of ADE20K's 847 classes, from the full release ADE20K_2021_17_01.

    python datasets/prepare_ade20k_full_sem_seg.py

reads ADE20K_2021_17_01/images/ADE/{training,validation}/<kind>/<scene>/*.jpg with *_seg.png beside them, writes
ADE20K_2021_17_01/images_detectron2/{training,validation}/*.jpg and annotations_detectron2/{training,validation}/*.tif:
16 bits, classes 0 to 846, 65535 for everything else. Pairs whose shorter side exceeds 512 pixels are reduced to it, as
published. The release's index_ade20k.pkl is not needed, and is not opened: a pickle can run code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _prepare import absent, command_line, parallel, read_json, require, save_image
from PIL import Image

from mask2former.data.datasets.checks import check_mask_size
from mask2former.data.reading import read_image
from mask2former.utils.errors import UserError

_LAYOUT = "ADE20K_2021_17_01/images/ADE/{training,validation}/<kind>/<scene>/ADE_*.jpg with ADE_*_seg.png"
_SOURCE = "https://groups.csail.mit.edu/vision/datasets/ADE20K/ (after registration)"
_IDS = Path(__file__).with_name("ade20k_full_ids.json")
_VOID = 65535
_CODES = 26 * 256  # of 8-bit red and green together
_SHORTEST = 512  # pixels of the shorter side, at most (MaskFormer's recipe for ADE20K-Full)
_QUALITY = 95  # of the JPEG files


def prepare(root: Path, workers: int) -> None:
    """Write images and maps below `root`, pairs that are there already excepted."""
    ade = root / "ADE20K_2021_17_01"
    for split in ("training", "validation"):
        folder = require(ade / "images" / "ADE" / split, _LAYOUT, _SOURCE)
        images = sorted(folder.rglob("*.jpg"))
        if not images:
            raise UserError(f"{folder} holds no *.jpg. Expected {_LAYOUT}; download it from {_SOURCE}.")
        jobs = [
            (
                image,
                ade / "images_detectron2" / split / image.name,
                ade / "annotations_detectron2" / split / f"{image.stem}.tif",
            )
            for image in images
        ]
        jobs = absent(jobs, lambda job: job[2], f"annotations_detectron2/{split}")
        parallel(_convert, jobs, workers, f"annotations_detectron2/{split}")


def _convert(job: tuple[Path, Path, Path]) -> None:
    source, image_output, mask_output = job
    path = source.with_name(f"{source.stem}_seg.png")
    image, encoded = read_image(source), read_image(path).astype(np.int32)
    check_mask_size(encoded.shape[:2], image.shape[:2], path)
    ids = encoded[..., 0] // 10 * 256 + encoded[..., 1]
    classes = np.full(_CODES, _VOID, np.uint16)
    classes[read_json(_IDS)["ids"]] = np.arange(847)
    picture, mask = Image.fromarray(image), Image.fromarray(classes[ids])
    scale = _SHORTEST / min(picture.size)
    if scale < 1:
        size = tuple(round(side * scale) for side in picture.size)
        picture, mask = (
            picture.resize(size, Image.Resampling.BILINEAR),
            mask.resize(size, Image.Resampling.NEAREST),
        )
    save_image(np.asarray(picture), image_output, quality=_QUALITY)
    save_image(np.asarray(mask), mask_output)  # the second one: it is what a later run looks for


if __name__ == "__main__":
    command_line(prepare, __doc__)
