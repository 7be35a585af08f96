"""The published mappers on drawn pictures in which colour tells which object a pixel belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mask2former.config import get_cfg
from mask2former.data.build import build_train_mapper
from mask2former.structures import LabelSet, Polygons, rle_encode
from mask2former.utils.errors import UserError

NAMES = [
    "mask_former_semantic",
    "mask_former_panoptic",
    "mask_former_instance",
    "coco_panoptic_lsj",
    "coco_instance_lsj",
    "detr_panoptic",
]
LABELS = LabelSet(("sky", "box", "kite"), thing_ids=(1, 2))
SIZE = (96, 128)
IDS = (70000, 300, 9, 5)  # ids of sky, box, kite and a crowd of kites in the panoptic file


def _write(folder: Path, form: str = "polygons") -> dict:
    """The record of a picture with red sky, a green box, a blue kite, and a grey crowd, annotated in every way."""
    outlines = [[[20, 12, 70, 12, 70, 50, 20, 50]], [[90, 20, 120, 60, 80, 84]], [[4, 70, 50, 70, 50, 92, 4, 92]]]
    box, kite, crowd = Polygons.from_coco(outlines, SIZE).draw().numpy()
    sky = ~(box | kite | crowd)
    pixels = np.zeros((*SIZE, 3), np.uint8)
    for channel, mask in enumerate((sky, box, kite)):
        pixels[mask, channel] = 255
    pixels[crowd] = 99
    ids = sum(mask * np.int64(i) for mask, i in zip((sky, box, kite, crowd), IDS, strict=True))
    Image.fromarray(pixels).save(folder / "a.png")
    Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], 2).astype(np.uint8)).save(folder / "pan.png")
    Image.fromarray((box * 1 + kite * 2 + crowd * 255).astype(np.uint8)).save(folder / "sem.png")
    shapes = {"polygons": outlines, "rle": map(rle_encode, (box, kite, crowd)), "bitmask": (box, kite, crowd)}[form]
    return {
        "file_name": str(folder / "a.png"),
        "image_id": 1,
        "height": SIZE[0],
        "width": SIZE[1],
        "sem_seg_file_name": str(folder / "sem.png"),
        "pan_seg_file_name": str(folder / "pan.png"),
        "segments_info": [
            {"id": i, "category_id": c, "isthing": c > 0, "iscrowd": int(i == 5)} for i, c in zip(IDS, (0, 1, 2, 2))
        ],
        "annotations": [
            {"id": i, "category_id": c, "iscrowd": int(i == 2), "segmentation": shape}
            for i, (c, shape) in enumerate(zip((1, 2, 2), shapes))
        ],
    }


def _mapper(name: str, *opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("INPUT.DATASET_MAPPER_NAME", name, "INPUT.FORMAT", "RGB", "INPUT.IMAGE_SIZE", 160),
            *("INPUT.MIN_SCALE", 0.4, "INPUT.MAX_SCALE", 2.0, "INPUT.MIN_SIZE_TRAIN", [60, 96, 200]),
            *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [80, 90]),
            *("INPUT.SIZE_DIVISIBILITY", 100, *opts),
        ]
    )
    return build_train_mapper(cfg, LABELS)


def _core(mask: torch.Tensor) -> torch.Tensor:
    """A mask without its outermost 3 pixels and those of the picture, where enlarging mixes colours."""
    return torch.nn.functional.avg_pool2d(mask[None].float(), 7, 1, 3)[0] == 1


@pytest.mark.parametrize("form", ["polygons", "rle", "bitmask"])
@pytest.mark.parametrize("name", NAMES)
def test_every_target_lies_on_its_object(name, form, tmp_path):
    torch.manual_seed(0)
    crop = ("INPUT.CROP.SIZE", [400, 500]) if name == "detr_panoptic" else ()  # its crops are of enlarged images
    record, mapper = _write(tmp_path, form), _mapper(name, *crop)
    seen = set()
    for _ in range(15):
        sample = mapper(record)
        size = tuple(sample["image"].shape[1:])
        edge = 160 if name.startswith("coco") else 100
        assert size == (edge, edge) or (name == "detr_panoptic" and min(size) in (60, 96, 200))
        assert sample["image"].shape == (3, *size) and sample["image"].dtype == torch.uint8
        assert type(sample["image"]) is torch.Tensor and sample["image"].is_contiguous()
        assert (sample["height"], sample["width"], sample["image_id"]) == (*SIZE, 1)
        found = sample["instances"]
        assert found.gt_masks.dtype == torch.bool and found.gt_masks.shape == (len(found), *size)
        assert found.gt_classes.dtype == torch.int64 and found.gt_masks.flatten(1).any(1).all()
        for class_id, mask in zip(found.gt_classes.tolist(), found.gt_masks, strict=True):
            seen.add(class_id)
            core = _core(mask)
            assert (sample["image"][class_id][core] > 200).all()
            assert (sample["image"][(class_id + 1) % 3][core] < 55).all()
        grey = (sample["image"].int() - 99).abs().amax(0) < 8
        assert not (found.gt_masks.any(0) & _core(grey)).any()  # crowds and padding are no targets
    assert seen == ({1, 2} if "instance" in name else {0, 1, 2})


@pytest.mark.parametrize("name", NAMES)
def test_samples_carry_no_lists_of_annotations(name, tmp_path):
    sample = _mapper(name)(_write(tmp_path))
    assert "annotations" not in sample and "segments_info" not in sample
    assert ("sem_seg" in sample) is (name == "mask_former_semantic")


@pytest.mark.parametrize("name", NAMES)
def test_the_channel_order_is_the_recipes(name, tmp_path):
    record, samples = _write(tmp_path), []
    for channels in ("RGB", "BGR"):
        torch.manual_seed(3)
        samples.append(_mapper(name, "INPUT.FORMAT", channels)(record)["image"])
    assert torch.equal(samples[0], samples[1].flip(0)) and samples[1].is_contiguous()


@pytest.mark.parametrize("name", ["mask_former_instance", "coco_instance_lsj"])
def test_an_image_without_objects_has_empty_targets(name, tmp_path):
    sample = _mapper(name)({**_write(tmp_path), "annotations": []})
    edge = 160 if name.startswith("coco") else 100
    assert sample["instances"].gt_masks.shape == (0, edge, edge) and len(sample["instances"].gt_classes) == 0


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_another_size_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"a.png is 96x128 pixels .*, but its record says 96x200"):
        _mapper(name)({**_write(tmp_path), "width": 200})


def test_a_panoptic_map_with_unlisted_segments_is_refused(tmp_path):
    record = _write(tmp_path)
    with pytest.raises(UserError, match=r"pan.png has the segment ids 9; 300, which"):
        _mapper("coco_panoptic_lsj")({**record, "segments_info": record["segments_info"][::3]})


def test_crops_limited_by_class_need_semantic_masks():
    _mapper("mask_former_semantic", "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75)
    for name in NAMES[1:3]:
        with pytest.raises(UserError, match=f"SINGLE_CATEGORY_MAX_AREA 0.75 .*'{name}' does not read. Set it to 1.0"):
            _mapper(name, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75)


def test_thousands_of_objects_take_one_array(tmp_path):
    """Drawn objects come out in order, each where it was, without a list of masks beside the result."""
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    corners = [(float(x), float(y)) for y in range(0, 64, 2) for x in range(0, 64, 2)]
    annotations = [
        {"category_id": 0, "segmentation": [[x, y, x + 1, y, x + 1, y + 1, x, y + 1]]} for x, y in corners for _ in "ab"
    ]
    record = {"file_name": str(tmp_path / "a.png"), "annotations": annotations}
    opts = ("INPUT.IMAGE_SIZE", 64, "INPUT.MIN_SCALE", 1.0, "INPUT.MAX_SCALE", 1.0, "INPUT.RANDOM_FLIP", "none")
    masks = _mapper("coco_instance_lsj", *opts)(record)["instances"].gt_masks
    assert masks.shape == (2048, 64, 64) and masks.untyped_storage().nbytes() == masks.numel()
    assert torch.equal(
        masks.flatten(1).int().argmax(1), torch.tensor([int(64 * y + x) for x, y in corners for _ in "ab"])
    )
