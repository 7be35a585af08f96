"""detectron2's augmentations here: image, masks, polygons and points move together."""

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from mask2former.compat import transforms as T
from mask2former.data.dataset_mappers.augmentations import as_augmentation
from mask2former.structures import Polygons

H, W = 60, 80
BOX = [30.0, 20.0, 44.0, 32.0]  # x0, y0, x1, y1 of the one object


def sample():
    """Image, class ids [H,W], layers [2,H,W] and polygons of one bright box on black."""
    x0, y0, x1, y1 = map(int, BOX)
    mask = torch.zeros(H, W, dtype=torch.uint8)
    mask[y0:y1, x0:x1] = 1
    image = tv_tensors.Image(mask.expand(3, H, W) * 255)
    ring = [x0, y0, x1, y0, x1, y1, x0, y1]
    layers = torch.stack([torch.zeros_like(mask), mask * 3])
    return image, tv_tensors.Mask(mask.int()), tv_tensors.Mask(layers), Polygons.from_coco([[ring]], (H, W))


MOVING = {
    "Resize": lambda: T.Resize((90, 100)),
    "Resize square": lambda: T.Resize(64),
    "ResizeShortestEdge": lambda: T.ResizeShortestEdge([40, 50], 70, "choice"),
    "ResizeScale": lambda: T.ResizeScale(0.9, 1.5, 60, 60),
    "RandomFlip": lambda: T.RandomFlip(1.0),
    "RandomFlip vertical": lambda: T.RandomFlip(1.0, horizontal=False, vertical=True),
    "RandomCrop": lambda: T.RandomCrop("absolute", (50, 60)),
    "RandomCrop relative": lambda: T.RandomCrop("relative_range", (0.6, 0.6)),
    "RandomCrop_CategoryAreaConstraint": lambda: T.RandomCrop_CategoryAreaConstraint("absolute", (50, 60), 0.9, 255),
    "FixedSizeCrop": lambda: T.FixedSizeCrop((50, 96)),
    "RandomRotation": lambda: T.RandomRotation([20, 70], expand=False),
    "RandomRotation expand": lambda: T.RandomRotation([-180, 180]),
    "RandomRotation center": lambda: T.RandomRotation([30], expand=False, center=[[0.4, 0.4]], sample_style="choice"),
    "RandomApply": lambda: T.RandomApply(T.RandomFlip(1.0), prob=1.0),
    "AugmentationList": lambda: T.AugmentationList([T.Resize((90, 100)), T.RandomRotation(15.0), T.RandomFlip(1.0)]),
}


@pytest.mark.parametrize("name", MOVING)
def test_everything_moves_together(name):
    torch.manual_seed(3)
    image, sem_seg, layers, polygons = sample()
    out, ids, numbered, outlines = MOVING[name]()(image, sem_seg, layers, polygons)
    size = out.shape[-2:]
    assert ids.shape == size and numbered.shape == (2, *size) and outlines.canvas_size == size
    bright = out[0] > 140
    assert bright.sum() > 60
    for inside in (ids == 1, numbered[1] == 3, outlines.draw()[0]):
        both, either = (bright & inside).sum(), (bright | inside).sum()
        assert both / either > 0.85  # half a pixel at the rim
    assert not numbered[0].any()
    assert set(ids.unique().tolist()) <= {0, 1, 255}


@pytest.mark.parametrize("name", MOVING)
def test_on_their_own_they_draw_what_arrays_and_points_follow(name):
    torch.manual_seed(4)
    image, sem_seg, *_ = sample()
    given = T.AugInput(image.permute(1, 2, 0).numpy(), boxes=np.array([BOX]), sem_seg=sem_seg.numpy())
    before = given.sem_seg
    drawn = T.AugmentationList([MOVING[name]()])(given)
    assert given.image.shape[:2] == given.sem_seg.shape
    assert (drawn.apply_segmentation(before) == given.sem_seg).all()
    in_colours = drawn.apply_segmentation(np.stack([before, before * 0, before], 2))  # as panoptic maps are
    assert in_colours.shape == (*given.sem_seg.shape, 3) and not in_colours[..., 1].any()
    assert ((in_colours[..., 0] == 1) == (given.sem_seg == 1)).all()
    rows, columns = np.nonzero(given.image[..., 0] > 140)
    center = drawn.apply_coords(np.array([[(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2]]))[0]
    assert np.abs(center - [columns.mean() + 0.5, rows.mean() + 0.5]).max() < 0.6
    x0, y0, x1, y1 = given.boxes[0]
    assert x0 - 1 <= columns.min() and columns.max() <= x1 + 1 and y0 - 1 <= rows.min() and rows.max() <= y1 + 1


@pytest.mark.parametrize("piece", [T.RandomBrightness, T.RandomContrast, T.RandomSaturation])
def test_colours_blend_and_leave_masks_alone(piece):
    image, sem_seg, *_ = sample()
    image[0] //= 2
    same, ids = piece(1.0, 1.0)(image, sem_seg)
    assert torch.equal(same, image) and torch.equal(ids, sem_seg)
    plain = piece(0.0, 0.0)(image)
    spread = plain.float().amax((1, 2)) - plain.float().amin((1, 2))
    assert torch.equal(plain[0], plain[1]) and (piece is T.RandomSaturation or spread.max() == 0)
    assert piece(0.5, 1.5).get_transform(image.permute(1, 2, 0).numpy()).apply_coords(np.ones((1, 2))).tolist() == [
        [1, 1]
    ]


def test_ssd_colours_change_the_image_alone():
    torch.manual_seed(0)
    image, sem_seg, _, polygons = sample()
    image = tv_tensors.Image(image // 2 + 40)
    results = [T.ColorAugSSDTransform(img_format="RGB")(image, sem_seg, polygons) for _ in range(5)]
    assert any(not torch.equal(out, image) for out, *_ in results)
    assert all(torch.equal(ids, sem_seg) and torch.equal(p, polygons) for _, ids, p in results)


def test_new_ground_is_ignored_in_class_ids_and_empty_in_layers():
    image, sem_seg, layers, _ = sample()
    _, ids, numbered = T.FixedSizeCrop((100, 100))(image, sem_seg, layers)
    assert (ids[60:] == 255).all() and not numbered[:, 60:].any()
    assert (T.FixedSizeCrop((100, 100), seg_pad_value=7)(image, sem_seg)[1][60:] == 7).all()
    turned = T.RandomRotation(45.0, expand=False)(image, sem_seg, layers)
    assert turned[1][0, 0] == 255 and not turned[2][:, 0, 0].any()


# ---- augmentations that users write


class Mirror(T.Augmentation):
    """Written as detectron2's documentation shows: no call of super().__init__, arrays, a Transform."""

    def __init__(self, prob):
        self._init(locals())

    def get_transform(self, image):
        class _Mirror(T.Transform):
            def apply_image(self, img):
                return img[:, ::-1]

            def apply_coords(self, coords):
                return np.stack([image.shape[1] - coords[:, 0], coords[:, 1]], 1)

        return _Mirror() if self._rand_range() < self.prob else T.NoOpTransform()


def test_users_augmentations_move_tensors_too():
    image, sem_seg, layers, polygons = sample()
    mirrored = Mirror(1.0)(image, sem_seg, layers, polygons)
    expected = v2.RandomHorizontalFlip(1.0)(image, sem_seg, layers, polygons)
    assert all(torch.equal(a, b) for a, b in zip(mirrored, expected))
    assert type(mirrored[3]) is Polygons and mirrored[3].canvas_size == (H, W)
    assert all(torch.equal(a, b) for a, b in zip(Mirror(0.0)(image, sem_seg), (image, sem_seg)))


def test_users_functions_of_colour_may_give_floats():
    image, sem_seg, *_ = sample()
    darker = as_augmentation(T.ColorTransform(lambda array: array * 0.5 - 3.0))
    out, ids = darker(image, sem_seg)
    assert out.dtype == torch.uint8 and set(out.unique().tolist()) == {0, 124} and torch.equal(ids, sem_seg)


def test_an_augmentation_may_look_at_the_class_ids():
    class OnlyWithObjects(T.Augmentation):
        def get_transform(self, image, sem_seg):
            return T.ColorTransform(lambda array: 0 * array) if sem_seg.any() else T.NoOpTransform()

    image, sem_seg, layers, _ = sample()
    assert not OnlyWithObjects()(image, sem_seg)[0].any()
    with pytest.raises(TypeError, match="sem_seg"):
        OnlyWithObjects()(image, layers)


def test_objects_that_only_look_like_detectron2s_are_taken():
    class Theirs:  # of the real package: not a module of torch
        def get_transform(self, image):
            return T.ColorTransform(lambda array: array // 2)

    class TheirRandomApply:
        def get_transform(self, *args):
            return Theirs().get_transform(*args)

    class TheirList:
        augs = (Theirs(), TheirRandomApply())

    image, sem_seg, *_ = sample()
    for theirs, factor in ((Theirs(), 2), (TheirRandomApply(), 2), (TheirList(), 4)):
        assert torch.equal(as_augmentation(theirs)(image, sem_seg)[0], image // factor)
    assert torch.equal(T.AugmentationList([])(image), image)
    with pytest.raises(TypeError, match="no augmentation"):
        as_augmentation("flip")


def test_transforms_are_kept_as_their_authors_write_them():
    class Shift(T.Transform):
        def __init__(self, pixels):
            super().__init__()
            self._set_attributes(locals())

        def apply_image(self, img):
            return np.roll(img, self.pixels, 1)

        def apply_coords(self, coords):
            return np.add(coords, [self.pixels, 0])

    both = T.TransformList([Shift(4)]) + T.TransformList([T.HFlipTransform(W), Shift(1)])  # the second is fvcore's
    assert len(both + T.NoOpTransform()) == 4
    image, sem_seg, _, polygons = sample()
    _, ids, outlines = T.AugmentationList(both.transforms)(image, sem_seg, polygons)
    assert torch.equal(outlines.draw()[0], ids == 1)
    assert both.apply_box(np.array([BOX])).tolist() == [[W - 48 + 1, 20, W - 34 + 1, 32]]


def test_older_spelling_of_mappers():
    image = sample()[0].permute(1, 2, 0).numpy()
    out, drawn = T.apply_transform_gens([T.Resize((30, 40)), T.RandomFlip(1.0)], image)
    assert out.shape == (30, 40, 3) and len(drawn) == 2
    given, _ = T.apply_augmentations([T.Resize((30, 40))], T.AugInput(image))
    assert given.image.shape == (30, 40, 3)
