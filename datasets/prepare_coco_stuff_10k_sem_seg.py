#!/usr/bin/env python
"""Images and semantic maps of COCO-Stuff-10k (171 classes), sorted into train and test.

    python datasets/prepare_coco_stuff_10k_sem_seg.py

reads coco/coco_stuff_10k/{imageLists/{train,test}.txt,images,annotations}, writes
coco/coco_stuff_10k/{images_detectron2,annotations_detectron2}/{train,test}: PNG, classes 0 to 170, 255 where nothing is
labelled. Both releases are read: 1.1, with COCO's category ids, and 1.0, in the HDF5 form that needs h5py.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from _prepare import absent, command_line, parallel, require, save_image, whole_file
from scipy.io import loadmat

from mask2former.data.datasets.checks import check_mask_size
from mask2former.data.reading import read_size
from mask2former.structures import builtin_labels
from mask2former.utils.errors import UserError

_LAYOUT = "coco/coco_stuff_10k/imageLists/{train,test}.txt, images/*.jpg and annotations/*.mat"
_SOURCE = "https://github.com/nightrome/cocostuff10k (cocostuff-10k-v1.1.zip)"
_VOID = 255
_HDF5 = b"\x89HDF"


def prepare(root: Path, workers: int) -> None:
    """Write images and maps below `root`, pairs that are there already excepted."""
    stuff = root / "coco" / "coco_stuff_10k"
    for split in ("train", "test"):
        stems = require(stuff / "imageLists" / f"{split}.txt", _LAYOUT, _SOURCE).read_text(encoding="utf-8").split()
        jobs = [
            (stuff, stem, stuff / "images_detectron2" / split, stuff / "annotations_detectron2" / split / f"{stem}.png")
            for stem in stems
        ]
        jobs = absent(jobs, lambda job: job[3], f"annotations_detectron2/{split}")
        parallel(_convert, jobs, workers, f"annotations_detectron2/{split}")


def _convert(job: tuple[Path, str, Path, Path]) -> None:
    stuff, stem, image_folder, mask_output = job
    image = require(stuff / "images" / f"{stem}.jpg", _LAYOUT, _SOURCE)
    path = require(stuff / "annotations" / f"{stem}.mat", _LAYOUT, _SOURCE)
    mask = _classes(path)
    check_mask_size(mask.shape, read_size(image), path)
    with whole_file(image_folder / image.name) as draft:
        try:
            os.link(image, draft)  # takes no space
        except OSError:  # a file system without links
            shutil.copyfile(image, draft)
    save_image(mask, mask_output)  # the second one: it is what a later run looks for


def _classes(path: Path) -> np.ndarray:
    """uint8 [H,W], 0 to 170 or 255, of a .mat file, whose matrix "S" has ids of its release's own."""
    dataset_ids = builtin_labels("coco_2017_train_stuff_10k_sem_seg").dataset_ids
    table = np.full(256, _VOID, np.uint8)
    try:
        with path.open("rb") as file:
            hdf5 = file.read(len(_HDF5)) == _HDF5
        if hdf5:  # release 1.0: stored by columns, 1 is unlabelled, the classes follow
            table[2 : 2 + len(dataset_ids)] = np.arange(len(dataset_ids))
            ids = _read_hdf5(path).T
        else:  # release 1.1: 0 is unlabelled, else COCO's id
            table[list(dataset_ids)] = np.arange(len(dataset_ids))
            ids = loadmat(path)["S"]
        return table[np.asarray(ids).astype(np.uint8)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path} has no readable matrix "S" ({error}). Download it again from {_SOURCE}.') from error


def _read_hdf5(path: Path) -> np.ndarray:
    try:
        import h5py
    except ImportError as error:
        raise UserError(
            f"{path} is in the HDF5 form of release 1.0, which needs h5py: pip install h5py. Or take release 1.1, "
            f"{_SOURCE}."
        ) from error
    with h5py.File(path) as file:
        return np.asarray(file["S"])


if __name__ == "__main__":
    command_line(prepare, __doc__)
