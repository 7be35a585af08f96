import copy
import pickle

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mask2former.structures import Polygons

RNG = np.random.default_rng(0)


def _drawn(rings: list, height: int, width: int) -> np.ndarray:
    """pycocotools' own mask of one object."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width))).astype(bool)


def _random(height: int, width: int, objects: int, decimals: int = 2) -> list:
    """Objects of one to three rings, some reaching out of the canvas."""
    centers = RNG.uniform(-0.2, 1.2, (objects, 2)) * [width, height]
    return [
        [(c + RNG.normal(size=(int(RNG.integers(3, 9)), 2)) * 12).round(decimals).flatten().tolist() for _ in range(n)]
        for c, n in zip(centers, RNG.integers(1, 4, objects))
    ]


@pytest.mark.parametrize("decimals", [0, 1, 2, 8])
def test_drawing_is_pycocotools(decimals):
    for height, width in ((40, 60), (9, 100), (64, 7)):
        objects = _random(height, width, 40, decimals)
        masks = Polygons.from_coco(objects, (height, width)).draw()
        assert masks.dtype == torch.bool and masks.shape == (40, height, width)
        np.testing.assert_array_equal(masks.numpy(), [_drawn(rings, height, width) for rings in objects])


def test_visible_objects_are_those_that_cover_a_pixel():
    polygons = Polygons.from_coco([*_random(50, 70, 200, 8), []], (50, 70))
    masks, visible = polygons.draw_visible()
    whole = polygons.draw()
    assert visible.tolist() == whole.flatten(1).any(1).nonzero().flatten().tolist()
    assert 0 < len(visible) < 200
    assert torch.equal(masks.tensor, whole[visible])


def test_no_objects_and_objects_out_of_sight():
    for objects in ([], [[]], [[[-9.0, -9.0, -1.0, -9.0, -1.0, -1.0]]]):
        polygons = Polygons.from_coco(objects, (4, 6))
        assert polygons.draw().shape == (len(objects), 4, 6) and not polygons.draw().any()
        masks, visible = F.horizontal_flip(polygons).draw_visible()
        assert masks.shape == (0, 4, 6) and visible.tolist() == []


@pytest.mark.parametrize("flip", [F.horizontal_flip, F.vertical_flip])
def test_flipping_twice_is_the_identity_and_turns_the_masks(flip):
    boxes = Polygons.from_coco([[[3, 2, 9, 2, 9, 11, 3, 11]], [[0, 0, 20, 0, 20, 1, 0, 1]]], (12, 20))
    once = flip(boxes)
    assert torch.equal(once.draw(), boxes.draw().flip(-1 if flip is F.horizontal_flip else -2))
    assert torch.equal(flip(once).as_subclass(torch.Tensor), boxes.as_subclass(torch.Tensor))


def test_whole_pixel_moves_equal_those_of_the_masks():
    rings = [[[4, 3, 15, 3, 15, 9, 4, 9]], [[8, 0, 12, 0, 12, 14, 8, 14]]]
    polygons = Polygons.from_coco(rings, (14, 20))
    masks = polygons.draw()
    cropped = F.crop(polygons, 2, 5, 8, 12)
    assert cropped.canvas_size == (8, 12)
    assert torch.equal(cropped.draw(), masks[:, 2:10, 5:17])
    for padding, sides in ((3, (3, 3, 3, 3)), ([1, 2], (1, 1, 2, 2)), ([1, 2, 3, 4], (1, 3, 2, 4))):
        padded = F.pad(polygons, padding, fill=7)
        assert torch.equal(padded.draw(), torch.nn.functional.pad(masks, sides))
    doubled = F.resize(polygons, [28, 60])
    assert torch.equal(doubled.draw(), masks.repeat_interleave(2, 1).repeat_interleave(3, 2))


def test_rings_go_along_with_copies():
    polygons = Polygons.from_coco(_random(20, 30, 5), (20, 30))
    copies = (polygons.clone(), copy.deepcopy(polygons), pickle.loads(pickle.dumps(polygons)), polygons.to("cpu"))
    for other in (*copies, polygons.to(torch.float32)):
        assert type(other) is Polygons and other.canvas_size == (20, 30) and other.num_objects == 5
        assert torch.equal(other.draw(), polygons.draw()) or other.dtype == torch.float32
    assert type(polygons + 1) is torch.Tensor


def test_transforms_without_a_kernel_are_refused_rather_than_skipped():
    polygons = Polygons.from_coco(_random(20, 30, 2), (20, 30))
    image = tv_tensors.Image(torch.zeros(3, 20, 30))
    for transform in (v2.RandomRotation((10, 20)), v2.RandomAffine((10, 20)), v2.RandomPerspective(p=1)):
        with pytest.raises(NotImplementedError, match="resized, cropped, padded and flipped"):
            transform(image, polygons)
    with pytest.raises(ValueError, match=r"resized to a size \(height, width\), not to \[9\]"):
        F.resize(polygons, [9])


def test_rings_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="2 ring lengths with the sum 7 and 2 ring objects for 8 vertices"):
        Polygons(torch.zeros(8, 2), [3, 4], [0, 1], 2, (5, 5))


def test_what_was_cropped_away_stays_away_when_the_canvas_grows():
    """A crop that is padded to a fixed size: objects must not reach into the padding."""
    polygons = Polygons.from_coco([[[2, 2, 30, 2, 30, 12, 2, 12]]], (14, 34))
    masks = polygons.draw()
    moved = F.pad(F.crop(polygons, 4, 5, 6, 10), [3, 2, 20, 30])
    wanted = torch.nn.functional.pad(masks[:, 4:10, 5:15], (3, 20, 2, 30))
    for steps in (lambda x: x, F.horizontal_flip, F.vertical_flip, lambda x: F.crop(x, 1, 2, 30, 9)):
        assert torch.equal(steps(moved).draw(), steps(tv_tensors.Mask(wanted)).bool())
        assert torch.equal(steps(moved).draw_visible()[0].tensor, steps(moved).draw())
    doubled = F.resize(moved, [76, 66]).draw()
    assert torch.equal(doubled, wanted.repeat_interleave(2, 1).repeat_interleave(2, 2))
