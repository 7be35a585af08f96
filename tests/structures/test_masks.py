import numpy as np
import torch
from pycocotools import mask as coco_mask

from mask2former.structures import BitMasks, masks_to_boxes, pad_batch, padded_size, rle_areas, rle_decode, rle_encode


def test_boxes_enclose_their_masks_tightly():
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(20, 13, 17, generator=generator) > 0.97
    masks[0] = False
    for mask, (x0, y0, x1, y1) in zip(masks, masks_to_boxes(masks).int().tolist()):
        rows, columns = mask.nonzero(as_tuple=True)
        if len(rows):
            assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        else:
            assert (x0, y0, x1, y1) == (0, 0, 0, 0)
    assert masks_to_boxes(masks[:0]).shape == (0, 4)
    assert torch.equal(BitMasks(masks).get_bounding_boxes(), masks_to_boxes(masks))
    assert [m.shape for m in BitMasks(masks)] == [(13, 17)] * 20


def test_rle_round_trip_and_area():
    mask = torch.rand(9, 14, generator=torch.Generator().manual_seed(1)) > 0.5
    rle = rle_encode(mask)
    assert rle["size"] == [9, 14]
    assert isinstance(rle["counts"], str)
    assert coco_mask.area(rle) == mask.sum()
    assert np.array_equal(rle_decode(rle), mask.numpy())


def test_uncompressed_rle():
    assert rle_decode({"size": [2, 2], "counts": [1, 2, 1]}).tolist() == [[False, True], [True, False]]


def test_batch_pads_right_and_below():
    clips = [torch.ones(1, 3, 5, 9), torch.ones(1, 3, 8, 4)]
    batch = pad_batch(clips, 4)
    assert batch.tensor.shape == (2, 1, 3, 8, 12)
    assert batch.padded_size == padded_size(batch.sizes, 4) == (8, 12)
    assert batch.tensor[0, 0, 0, :5, :9].all()
    assert batch.tensor.sum() == 3 * (5 * 9 + 8 * 4)
    assert pad_batch(clips, -1).padded_size == (8, 9)


def test_areas_of_more_than_255_masks():
    masks = [np.eye(20, dtype=bool)[: i % 21] for i in range(300)]
    assert rle_areas([rle_encode(mask) for mask in masks if len(mask)]).tolist() == [len(m) for m in masks if len(m)]
    assert rle_areas([]).tolist() == []
