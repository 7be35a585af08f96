import pytest
import torch

from mask2former.ops import random_points, sample_map, sample_mask, uncertain_points


def test_pixel_centres_give_the_pixels():
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (4, 6))
    y, x = torch.meshgrid((rows + 0.5) / 4, (columns + 0.5) / 6, indexing="ij")
    points = torch.stack([x, y], 2).view(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample_map(maps, points), maps.flatten(2))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_in_windows_are_sampled_as_floating_maps(dtype, shared):
    g = torch.Generator().manual_seed(0)
    boxes = [(0, 0, 9, 7), (2, 3, 4, 2), (8, 6, 1, 1), (0, 0, 0, 0), (3, 1, 5, 6)]  # x0, y0, width, height
    masks, crops, places = torch.zeros(5, 7, 9, dtype=torch.bool), [], []
    for mask, (x, y, w, h) in zip(masks, boxes):
        crop = torch.rand(h, w, generator=g) > 0.4
        mask[y : y + h, x : x + w] = crop
        value = len(places) % 2  # what is inside is a matter of the value
        places.append([sum(c.numel() for c in crops), x, y, w, h, value])
        crops.append(crop if value else ~crop)
    pixels, places = torch.cat([c.flatten() for c in crops]), torch.tensor(places)
    points = torch.rand(5, 200, 2, generator=g, dtype=dtype) * 1.5 - 0.25  # some outside
    points = points[0] if shared else points
    expected = sample_map(masks.to(dtype)[:, None], points.expand(5, -1, -1))[:, 0]
    torch.testing.assert_close(sample_mask(pixels, places, (7, 9), points), expected)


def test_uncertain_points_lie_near_the_boundary():
    x = torch.linspace(-8, 8, 64)
    logits = x.expand(3, 64, 64).contiguous()  # zero along the middle column
    points = uncertain_points(logits, 400, oversample_ratio=3.0, importance_ratio=0.75)
    assert points.shape == (3, 400, 2)
    near, anywhere = points[:, :300, 0], points[:, 300:, 0]
    # a quarter of the points at random would reach 0.125; beyond the outer pixels' centres logits fade to zero
    assert (near - 0.5).abs().mean() < 0.1
    assert (near - 0.5).abs().max() < 0.3
    assert (anywhere - 0.5).abs().max() > 0.4


def test_no_masks_no_points():
    empty = torch.zeros(0, 8, 8)
    points = uncertain_points(empty, 16, 3.0, 0.75)
    assert points.shape == (0, 16, 2)
    assert sample_map(empty[:, None], points).shape == (0, 1, 16)
    none = torch.zeros(0, dtype=torch.bool), torch.zeros(0, 6, dtype=torch.int64)
    assert sample_mask(*none, (8, 8), points).shape == (0, 16)


def test_points_are_at_least_single_precision():
    assert random_points(1, 4, torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert random_points(1, 4, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
