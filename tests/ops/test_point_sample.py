import pytest
import torch

from mask2former.ops import random_points, sample_map, sample_mask, uncertain_points


def test_pixel_centres_give_the_pixels():
    maps = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (4, 6))
    y, x = torch.meshgrid((rows + 0.5) / 4, (columns + 0.5) / 6, indexing="ij")
    points = torch.stack([x, y], 2).view(1, -1, 2).expand(2, -1, -1)
    torch.testing.assert_close(sample_map(maps, points), maps.flatten(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boolean_masks_are_sampled_as_their_float_copies(dtype):
    g = torch.Generator().manual_seed(0)
    masks = torch.rand(5, 7, 9, generator=g) > 0.5
    points = torch.rand(5, 200, 2, generator=g, dtype=dtype) * 1.5 - 0.25  # some outside
    torch.testing.assert_close(sample_mask(masks, points), sample_map(masks.to(dtype)[:, None], points)[:, 0])


def test_rows_choose_the_masks():
    g = torch.Generator().manual_seed(0)
    masks, points, rows = (
        torch.rand(3, 7, 9, generator=g) > 0.5,
        torch.rand(4, 50, 2, generator=g),
        torch.tensor([2, 0, 2, 1]),
    )
    torch.testing.assert_close(sample_mask(masks, points, rows), sample_mask(masks[rows], points))


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
    assert sample_mask(empty.bool(), points).shape == (0, 16)


def test_points_are_at_least_single_precision():
    assert random_points(1, 4, torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert random_points(1, 4, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
