import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from mask2former.data.targets import (
    InstanceAnnotation,
    layered,
    number_segments,
    numbered_instances,
    semantic_instances,
)
from mask2former.structures import Polygons, coco_rle, rle_encode
from mask2former.utils.errors import UserError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_masks_partition_the_labelled_pixels(dtype):
    sem_seg = torch.randint(0, 6, (13, 17), generator=torch.Generator().manual_seed(0)).to(dtype)
    sem_seg[3:5] = 255
    found = semantic_instances(sem_seg, ignore_label=255)
    assert found.gt_classes.dtype == torch.int64 and found.gt_masks.tensor.dtype == torch.bool
    assert found.image_size == (13, 17) and found.gt_masks.tensor.shape == (len(found), 13, 17)
    assert torch.equal(found.gt_masks.tensor.sum(0), (sem_seg != 255).long())
    for class_id, mask in zip(found.gt_classes, found.gt_masks.tensor, strict=True):
        assert mask.any() and torch.equal(mask, sem_seg == class_id)


def test_ids_above_a_byte_and_a_large_ignore_value():
    sem_seg = torch.tensor([[0, 846], [300, 65535]], dtype=torch.int32)
    assert semantic_instances(sem_seg, ignore_label=65535).gt_classes.tolist() == [0, 300, 846]


def test_an_image_without_labels_has_no_instances():
    found = semantic_instances(torch.full((4, 5), 255, dtype=torch.int32), ignore_label=255)
    assert len(found) == 0 and found.gt_masks.tensor.shape == (0, 4, 5)


# ---------------------------------------------------------------- panoptic


@pytest.mark.parametrize(("count", "dtype"), [(0, np.uint8), (5, np.uint8), (254, np.uint8), (300, np.int16)])
def test_segments_are_numbered_in_their_order(count, dtype):
    ids = [0, *RNG.choice(np.arange(1, 1 << 24), count + 2, replace=False).tolist()]
    segments, crowd = ids[1 : count + 1], ids[count + 1 :]
    places = RNG.integers(0, len(ids), (40, 50))
    numbered = number_segments(np.array(ids, np.int32)[places], segments, crowd, "a.png")
    assert numbered.dtype == dtype
    np.testing.assert_array_equal(numbered, np.where(places <= count, places, 0))


def test_unlisted_segments_are_told():
    ids = np.array([[0, 7, 9], [70000, 8, 8]], np.int32)
    with pytest.raises(UserError, match=r"a.png has the segment ids 8; 9, which its segments_info does not list"):
        number_segments(ids, [70000], [7], "a.png")
    assert number_segments(ids, [70000], [7, 8, 9], "a.png").tolist() == [[0, 0, 0], [1, 0, 0]]


def test_vanished_objects_are_left_out():
    numbers = torch.tensor([[0, 2, 2], [5, 5, 0]], dtype=torch.uint8)
    found = numbered_instances(numbers, torch.tensor([10, 11, 12, 13, 14]))
    assert found.gt_classes.tolist() == [11, 14]
    assert torch.equal(found.gt_masks.tensor, torch.stack([numbers == 2, numbers == 5]))
    assert numbered_instances(numbers * 0, torch.tensor([10, 11])).gt_masks.shape == (0, 2, 3)
    assert numbered_instances(numbers * 0, torch.zeros(0, dtype=torch.int64)).gt_masks.shape == (0, 2, 3)


# ---------------------------------------------------------------- instances


def _objects(count: int, height: int = 40, width: int = 50) -> tuple[list, np.ndarray]:
    """Overlapping boxes with whole corners as polygons, and as masks [N,H,W]."""
    polygons, masks = [], np.zeros((count, height, width), bool)
    for mask in masks:
        (x0, x1), (y0, y1) = np.sort(RNG.choice(width, 2, False)), np.sort(RNG.choice(height, 2, False))
        mask[y0:y1, x0:x1] = True
        polygons.append([[float(v) for v in (x0, y0, x1, y0, x1, y1, x0, y1)]])
    return polygons, masks


def _uncompressed(mask: np.ndarray) -> dict:
    flat = np.concatenate([[False], mask.flatten(order="F"), [True]])
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts}


def _targets(segmentations: list):
    annotations = [{"segmentation": s, "category_id": i % 7, "iscrowd": 0} for i, s in enumerate(segmentations)]
    moved, classes = InstanceAnnotation().read({"annotations": annotations, "file_name": "a.jpg"}, (40, 50))
    return moved, InstanceAnnotation().targets(moved, classes)["instances"]


def test_polygons_rle_and_bitmasks_of_the_same_objects_give_the_same_targets():
    polygons, masks = _objects(30)
    forms = {
        "polygons": polygons,
        "rle": [rle_encode(mask) for mask in masks],
        "bytes": [{**rle_encode(mask), "counts": rle_encode(mask)["counts"].encode()} for mask in masks],
        "uncompressed": [_uncompressed(mask) for mask in masks],
        "bitmask": list(masks),
        "mixed": [*polygons[:10], *masks[10:20], *map(rle_encode, masks[20:])],
    }
    for name, segmentations in forms.items():
        moved, found = _targets(segmentations)
        assert type(moved) is (Polygons if name == "polygons" else tv_tensors.Mask)
        assert found.gt_classes.tolist() == [i % 7 for i in range(30)], name
        np.testing.assert_array_equal(found.gt_masks.tensor.numpy(), masks, err_msg=name)


def test_objects_that_do_not_overlap_share_a_layer():
    masks = np.zeros((300, 20, 300), bool)
    masks[np.arange(300), :, np.arange(300)] = True
    layers = layered([coco_rle(mask, (20, 300)) for mask in masks], (20, 300))
    assert layers.shape == (1, 20, 300) and layers.dtype == np.int16
    masks[:, 0] = True  # every object on every other one
    layers = layered([coco_rle(mask, (20, 300)) for mask in masks[:12]], (20, 300))
    assert layers.shape == (12, 20, 300) and layers.dtype == np.uint8
    np.testing.assert_array_equal([layer == k + 1 for k, layer in enumerate(layers)], masks[:12])


def test_crowds_and_images_without_objects():
    polygons, masks = _objects(4)
    crowd = {"segmentation": rle_encode(masks[0]), "category_id": 3, "iscrowd": 1}
    kept = {"segmentation": polygons[1], "category_id": 5}
    moved, classes = InstanceAnnotation().read({"annotations": [crowd, kept, crowd], "file_name": "a.jpg"}, (40, 50))
    assert isinstance(moved, Polygons) and classes.tolist() == [5]
    for annotations in ([], [crowd]):
        moved, classes = InstanceAnnotation().read({"annotations": annotations, "file_name": "a.jpg"}, (40, 50))
        found = InstanceAnnotation().targets(moved, classes)["instances"]
        assert found.gt_masks.tensor.shape == (0, 40, 50) and found.gt_masks.tensor.dtype == torch.bool
        assert found.gt_classes.shape == (0,) and found.gt_classes.dtype == torch.int64


def test_masks_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"image a.jpg: the RLE has the size \[40, 49\]"):
        _targets([rle_encode(np.ones((40, 49), bool))])
