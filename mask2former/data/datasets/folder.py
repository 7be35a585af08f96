"""Semantic data sets that are two folders: images, and masks of the same stem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mask2former.data.catalog import metadata_of, register_anew
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import some


@dataclass(frozen=True)
class SemSegFolder:
    """Source of records from an image and a mask folder; equal settings make equal sources."""

    image_root: str
    sem_seg_root: str
    image_ext: str = ""
    gt_ext: str = ""

    def __call__(self) -> list[dict]:
        return load_sem_seg(self.sem_seg_root, self.image_root, self.gt_ext, self.image_ext)


def load_sem_seg(
    gt_root: str | Path, image_root: str | Path, gt_ext: str = "png", image_ext: str = "jpg"
) -> list[dict]:
    """Pair images with masks by their path below the roots without suffix, in sorted order.

    Args:
        gt_root: folder of masks, searched with its subfolders.
        image_root: folder of images, likewise.
        gt_ext, image_ext: suffix without dot, upper or lower case; "" takes every suffix that Pillow reads.

    Returns:
        records with "file_name", "sem_seg_file_name" and "image_id" (the common path without suffix).

    Raises:
        UserError: a folder is missing or empty, two files have one stem, or files are without partner.
    """
    records, lonely = pair_files(gt_root, image_root, gt_ext, image_ext)
    if lonely:
        raise UserError(
            f"Each image needs a mask of the same stem, and each mask an image; without partner ({len(lonely)}): "
            f"{some(lonely)}. Add the missing files or move these away."
        )
    return records


def pair_files(
    gt_root: str | Path, image_root: str | Path, gt_ext: str, image_ext: str
) -> tuple[list[dict], list[str]]:
    """As `load_sem_seg`; files without partner are not refused but described, the second result."""
    images = _by_stem(Path(image_root), image_ext, "image")
    masks = _by_stem(Path(gt_root), gt_ext, "mask")
    lonely = [f"image {images[s]} (no mask in {gt_root})" for s in sorted(images.keys() - masks.keys())]
    lonely += [f"mask {masks[s]} (no image in {image_root})" for s in sorted(masks.keys() - images.keys())]
    records = [
        {"file_name": str(images[stem]), "sem_seg_file_name": str(masks[stem]), "image_id": stem}
        for stem in sorted(images.keys() & masks.keys())
    ]
    return records, lonely


def _by_stem(root: Path, ext: str, kind: str) -> dict[str, Path]:
    """Files below `root` by their relative path without suffix; `kind` is "image" or "mask"."""
    if not root.is_dir():
        raise UserError(
            f"The {kind} folder {root} does not exist. Create it, or correct the root of the data set "
            "(DATASETS.CUSTOM.<name>.ROOT; $DETECTRON2_DATASETS for the published ones)."
        )
    if ext:
        suffixes = {"." + ext.lower().lstrip(".")}
    else:
        suffixes = set(Image.registered_extensions()) - {".pdf", ".mpg", ".mpeg"}
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        stem = path.relative_to(root).with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"Two {kind}s have one stem: {found[stem]} and {path}. Move one of them away.")
        found[stem] = path
    if not found:
        wanted = f"*.{ext.lstrip('.')}" if ext else "image files"
        raise UserError(f"The {kind} folder {root} is empty: no {wanted} in it. Put the {kind}s there.")
    return found


def register_folder(name: str, source: SemSegFolder, labels: LabelSet) -> None:
    """Register a folder pair with its labels, in place of whatever had the name."""
    fields = {
        "image_root": source.image_root,
        "sem_seg_root": source.sem_seg_root,
        "evaluator_type": "sem_seg",
    }
    register_anew(name, source, {**fields, **metadata_of(labels)})
