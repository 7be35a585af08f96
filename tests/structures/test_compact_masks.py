import torch

from mask2former.structures import CompactMasks


def draw(n=6, h=20, w=30):
    """Masks [N,H,W], their crops and corners; the first is empty."""
    g = torch.Generator().manual_seed(0)
    masks, crops, corners = torch.zeros(n, h, w, dtype=torch.bool), [], []
    for i, mask in enumerate(masks):
        y, x = int(torch.randint(h - 7, (), generator=g)), int(torch.randint(w - 5, (), generator=g))
        crop = torch.rand(7 if i else 0, 5, generator=g) > 0.3
        mask[y : y + len(crop), x : x + 5] = crop
        crops.append(crop)
        corners.append((x, y))
    return masks, crops, corners


def test_crops_become_the_masks():
    masks, crops, corners = draw()
    compact = CompactMasks.from_crops(crops, corners, (20, 30))
    assert compact.shape == masks.shape
    assert torch.equal(compact.tensor, masks)
    assert compact.pixels.numel() == 5 * 7 * 5


def test_maps_of_numbers_become_the_masks():
    numbers = torch.randint(0, 4, (2, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    compact = CompactMasks.from_numbers(numbers, torch.tensor([3, 1, 3]), torch.tensor([0, 1, 1]))
    assert torch.equal(compact.tensor, torch.stack([numbers[0] == 3, numbers[1] == 1, numbers[1] == 3]))
    assert torch.equal(CompactMasks.from_numbers(numbers[0], torch.tensor([2])).tensor[0], numbers[0] == 2)


def test_rows_are_chosen_as_of_tensors():
    masks, crops, corners = draw()
    compact = CompactMasks.from_crops(crops, corners, (20, 30))
    for item in (2, -1, slice(1, 4), torch.tensor([5, 0, 5]), torch.tensor([True, False] * 3)):
        expected = masks[item][None] if isinstance(item, int) else masks[item]
        assert torch.equal(compact[item].tensor, expected)
    assert torch.equal(CompactMasks.cat([compact[:2], compact[2:]]).tensor, masks)


def test_no_masks():
    none = CompactMasks.from_crops([], [], (4, 5))
    assert none.tensor.shape == none.shape == (0, 4, 5)
    assert none.places.shape == (0, 6)
    assert len(none[:0]) == 0
