import torch

from mask2former.structures import CroppedMasks, masks_to_boxes


def draw(n=6, h=20, w=30):
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(n, h, w, dtype=torch.bool)
    for mask in masks[1:]:  # the first stays empty
        y, x = int(torch.randint(h, (), generator=g)), int(torch.randint(w, (), generator=g))
        mask[y : y + 7, x : x + 5] = torch.rand(mask[y : y + 7, x : x + 5].shape, generator=g) > 0.3
    return masks


def test_nothing_is_lost_and_only_boxes_are_kept():
    masks = draw()
    cropped = CroppedMasks.from_dense(masks)
    assert cropped.shape == masks.shape
    assert torch.equal(cropped.tensor, masks)
    assert torch.equal(cropped.areas(), masks.flatten(1).sum(1))
    assert torch.equal(cropped.boxes.float(), masks_to_boxes(masks))
    assert cropped.pixels.numel() <= 6 * 7 * 5


def test_rows_are_chosen_as_of_tensors():
    masks = draw()
    cropped = CroppedMasks.from_dense(masks)
    for item in (2, -1, slice(1, 4), torch.tensor([5, 0, 5]), torch.tensor([True, False] * 3)):
        expected = masks[item][None] if isinstance(item, int) else masks[item]
        assert torch.equal(cropped[item].tensor, expected)
    assert torch.equal(CroppedMasks.cat([cropped[:2], cropped[2:]]).tensor, masks)


def test_no_masks():
    none = CroppedMasks.from_crops([], [], (4, 5))
    assert none.tensor.shape == none.shape == (0, 4, 5)
    assert none.places.shape == (0, 5)
    assert len(none[:0]) == 0
