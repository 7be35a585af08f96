"""Run lengths of masks are those of pycocotools."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mask2former.evaluation.encoding import EncodedMasks, encode_masks
from mask2former.structures import BitMasks


def assert_equals_pycocotools(masks):
    found = encode_masks(masks)
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    assert found.size == masks.shape[1:]
    assert found.counts == [rle["counts"] for rle in rles]
    np.testing.assert_array_equal(found.boxes, coco_mask.toBbox(rles) if rles else np.zeros((0, 4)))
    np.testing.assert_array_equal(found.areas, coco_mask.area(rles) if rles else [])


@pytest.mark.parametrize("share", [0, 0.02, 0.3, 0.7, 0.98, 1])
def test_random_masks(share):
    rng = np.random.default_rng(0)
    for _ in range(40):
        assert_equals_pycocotools(rng.random((3, *rng.integers(1, 9, 2))) < share)


def test_blocks_at_every_place():
    masks = np.zeros((3**4, 4, 4), bool)
    for mask, (top, left, height, width) in zip(masks, np.ndindex(3, 3, 3, 3)):
        mask[top : top + height + 1, left : left + width + 1] = True
    assert_equals_pycocotools(masks)


def test_no_mask():
    assert_equals_pycocotools(np.zeros((0, 5, 7), bool))


def test_other_kinds_of_masks():
    masks = np.random.default_rng(1).random((4, 9, 6)) < 0.5
    expected = encode_masks(masks).counts
    tensor = torch.from_numpy(masks)
    for same in (tensor, tensor.float(), tensor.bfloat16(), masks.astype(np.uint8) * 255, BitMasks(tensor)):
        assert encode_masks(same).counts == expected
    with pytest.raises(ValueError, match=r"\[N,H,W\]"):
        encode_masks(masks[0])


def test_parts_join():
    masks = np.random.default_rng(2).random((300, 9, 6)) < 0.5
    whole = encode_masks(masks)
    parts = EncodedMasks.cat([encode_masks(masks[:2]), encode_masks(masks[2:])], (9, 6))
    rles = [{"size": [9, 6], "counts": counts.decode()} for counts in whole.counts]
    for other in (parts, EncodedMasks.from_rles(rles, (9, 6))):
        assert other.counts == whole.counts
        np.testing.assert_array_equal(other.boxes, whole.boxes)
        np.testing.assert_array_equal(other.areas, whole.areas)
    assert EncodedMasks.from_rles([], (9, 6)).counts == []
