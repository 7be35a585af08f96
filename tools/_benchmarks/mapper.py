"""Training samples of COCO panoptic, `coco_panoptic_lsj` at 1024x1024, from files of 640x480 pixels.

The decoder's speed stands beside: no mapper can be faster.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from _benchmarks.contest import Contest
from _benchmarks.pictures import draw_image, draw_segments, write_segments
from _benchmarks.setting import Setting
from mask2former.config import load_cfg
from mask2former.data.build import build_train_mapper
from mask2former.data.reading import read_image, read_panoptic
from mask2former.structures import Instances, builtin_labels

RECIPE = Path(__file__).parents[2] / "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
SIZE, IMAGES = (480, 640), 60


def contests(setting: Setting) -> list[Contest]:
    """Mapping and decoding alone; pictures with about twelve segments are written below the setting's folder."""
    rng = np.random.default_rng(0)
    count = setting.pick(IMAGES, 4)
    records = [_draw(rng, setting.folder, number) for number in range(count)]
    cfg = load_cfg(RECIPE)
    mapper = build_train_mapper(cfg, builtin_labels(cfg.DATASETS.TRAIN[0]))
    plain = PlainMapper(cfg.INPUT.IMAGE_SIZE, cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE)

    def run(make) -> list[dict]:
        torch.manual_seed(0)
        plain.rng = np.random.default_rng(0)
        return [_summary(make(record)) for record in records]

    rival = "resizes the whole picture with Pillow, then crops"
    name = f"mapper coco_panoptic_lsj, {cfg.INPUT.IMAGE_SIZE}x{cfg.INPUT.IMAGE_SIZE}"
    return [
        Contest(name, count, "images", lambda: run(mapper), lambda: run(plain), rival, _same),
        Contest(
            f"decode JPEG and PNG, {SIZE[1]}x{SIZE[0]}",
            count,
            "images",
            lambda: [(read_image(r["file_name"]), read_panoptic(r["pan_seg_file_name"])) for r in records],
            lambda: [(_decode(r["file_name"]), _ids(_decode(r["pan_seg_file_name"]))) for r in records],
            "Pillow alone",
            _same_pixels,
        ),
    ]


def _decode(path: str) -> np.ndarray:
    """uint8 [H,W,3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _ids(colors: np.ndarray) -> np.ndarray:
    """Segment ids int32 [H,W] of COCO's colours."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def _draw(rng: np.random.Generator, folder: Path, number: int) -> dict:
    numbers = draw_segments(rng, SIZE, things=8, stuff=4)
    ids = np.concatenate([[0], rng.choice((1 << 24) - 1, numbers.max(), replace=False) + 1])
    image, panoptic = folder / f"{number:03d}.jpg", folder / f"{number:03d}.png"
    Image.fromarray(draw_image(rng, numbers)).save(image, quality=92)
    write_segments(ids[numbers], panoptic)
    segments = [
        {"id": int(ids[n]), "category_id": int(n), "isthing": n > 4, "iscrowd": 0} for n in np.unique(numbers) if n
    ]
    names = {"file_name": str(image), "pan_seg_file_name": str(panoptic), "image_id": number}
    return {**names, "height": SIZE[0], "width": SIZE[1], "segments_info": segments}


class PlainMapper:
    """Flip, large-scale jitter (Ghiasi et al., CVPR 2021) and crop, each on the whole picture, one after the other."""

    def __init__(self, size: int, min_scale: float, max_scale: float):
        self.size, self.scales = size, (min_scale, max_scale)
        self.rng = np.random.default_rng(0)

    def __call__(self, record: dict) -> dict:
        """image uint8 [3,S,S] and instances with gt_classes [N] and gt_masks bool [N,S,S]."""
        with Image.open(record["file_name"]) as image, Image.open(record["pan_seg_file_name"]) as panoptic:
            parts = [image.convert("RGB"), panoptic.convert("RGB")]
        if self.rng.random() < 0.5:
            parts = [part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in parts]
        scale = self.rng.uniform(*self.scales) * self.size / max(parts[0].size)
        size = tuple(max(1, round(side * scale)) for side in parts[0].size)
        resampling = (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
        pixels, colors = (np.asarray(part.resize(size, how)) for part, how in zip(parts, resampling, strict=True))
        shares = self.rng.random(2)
        pixels, colors = self._crop(pixels, shares, 128), self._crop(colors, shares, 0)
        ids = _ids(colors)
        masks = [(segment["category_id"], ids == segment["id"]) for segment in record["segments_info"]]
        masks = [(k, mask) for k, mask in masks if mask.any()]
        instances = Instances(
            (self.size, self.size),
            gt_classes=torch.tensor([k for k, _ in masks], dtype=torch.int64),
            gt_masks=torch.from_numpy(np.array([mask for _, mask in masks]).reshape(-1, self.size, self.size)),
        )
        return {"image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), "instances": instances}

    def _crop(self, array: np.ndarray, shares: np.ndarray, fill: int) -> np.ndarray:
        """A window [S,S,3] at `shares` (0 to 1) of the room there is, filled up below and to the right."""
        top, left = (int(max(0, side - self.size) * share) for side, share in zip(array.shape, shares))
        window = array[top : top + self.size, left : left + self.size]
        whole = np.full((self.size, self.size, 3), fill, np.uint8)
        whole[: window.shape[0], : window.shape[1]] = window
        return whole


def _summary(sample: dict) -> tuple[tuple[int, ...], int]:
    """Shape of the image and number of targets, so that samples need not be kept."""
    return tuple(sample["image"].shape), len(sample["instances"])


def _same(ours: list[tuple], rival: list[tuple]) -> None:
    """Random numbers differ between the two: sizes must agree, and targets on average."""
    if {shape for shape, _ in ours} != {shape for shape, _ in rival}:
        raise ValueError(f"the mappers' images differ in size: {ours[0][0]} and {rival[0][0]}")
    means = [np.mean([count for _, count in samples]) for samples in (ours, rival)]
    if not 0.8 < means[0] / means[1] < 1.25:
        raise ValueError(f"the mappers' images have {means[0]:.1f} and {means[1]:.1f} targets on average")


def _same_pixels(ours: list[tuple], rival: list[tuple]) -> None:
    for pair, other in zip(ours, rival, strict=True):
        for what, own, theirs in zip(("pixels", "segment ids"), pair, other, strict=True):
            if not np.array_equal(own, theirs):
                raise ValueError(f"{what} differ from the rival's")
