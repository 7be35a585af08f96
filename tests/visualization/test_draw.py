"""Drawings: size and type kept, arguments untouched, classes in their colours, odd input survived."""

import numpy as np
import pytest
import torch

from mask2former.structures import Instances, LabelSet
from mask2former.visualization.captions import Caption, region_captions, text_size, widest_place, write_captions
from mask2former.visualization.colors import blend, instance_color
from mask2former.visualization.draw import (
    draw_instances,
    draw_panoptic,
    draw_results,
    draw_sem_seg,
    overlay_sem_seg,
    region_borders,
)

H, W = 96, 128
LABELS = LabelSet(
    ("sky", "road", "car"), thing_ids=(2,), colors=((10, 20, 200), (120, 60, 120), (200, 30, 30)), ignore_label=255
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)


@pytest.fixture
def sem():
    sem = np.zeros((H, W), np.int32)
    sem[H // 2 :] = 1
    sem[60:80, 20:60] = 2
    sem[:10, :10] = 255
    return sem


@pytest.fixture
def instances():
    masks = torch.zeros(3, H, W)
    masks[0, 10:40, 10:50] = 1
    masks[1, 30:70, 40:100] = 1
    return Instances(
        (H, W), pred_masks=masks, pred_classes=torch.tensor([2, 2, 0]), scores=torch.tensor([0.9, 0.6, 0.8])
    )


SEGMENTS = [
    {"id": 5, "category_id": 0, "isthing": False},
    {"id": 3, "category_id": 2, "isthing": True},
    {"id": 900, "category_id": 2, "isthing": True},
]


@pytest.fixture
def seg():
    seg = np.zeros((H, W), np.int32)
    seg[:40] = 5
    seg[50:90, 10:50] = 3
    seg[50:90, 60:110] = 900
    return seg


def test_all_keep_size_and_type_and_leave_their_arguments_alone(image, sem, seg, instances):
    before = image.copy(), sem.copy(), seg.copy(), instances.pred_masks.clone()
    drawings = [
        draw_sem_seg(image, sem, LABELS),
        draw_panoptic(image, seg, SEGMENTS, LABELS),
        draw_instances(image, instances, LABELS),
    ]
    for drawing in drawings:
        assert drawing.shape == (H, W, 3)
        assert drawing.dtype == np.uint8
        assert (drawing != image).any()
    for array, old in zip((image, sem, seg), before):
        np.testing.assert_array_equal(array, old)
    assert torch.equal(instances.pred_masks, before[3])


def test_read_only_images_are_drawn_on(image, sem, seg, instances):
    image.flags.writeable = False
    draw_sem_seg(image, sem, LABELS)
    draw_panoptic(image, seg, SEGMENTS, LABELS)
    draw_instances(image, instances, LABELS)


def test_opaque_classes_have_their_palette_colour(image, sem):
    drawn = overlay_sem_seg(image, sem, LABELS, alpha=1)
    for k in range(3):
        assert (drawn[sem == k] == LABELS.palette()[k]).all()
    np.testing.assert_array_equal(drawn[sem == 255], image[sem == 255])


def test_a_pixel_is_mixed_by_alpha(image, sem):
    drawn = overlay_sem_seg(image, sem, LABELS, alpha=0.5)
    y, x = 90, 120  # road, far from borders
    expected = 0.5 * image[y, x] + 0.5 * LABELS.palette()[1]
    assert np.abs(drawn[y, x] - expected).max() <= 1


def test_names_are_written_in_the_regions(image, sem):
    plain = overlay_sem_seg(image, sem, LABELS, 0.55)
    written = draw_sem_seg(image, sem, LABELS)
    changed = (plain != written).any(-1)
    for k in range(3):
        assert changed[sem == k].any()


def test_tensors_are_drawn_as_arrays(image, sem, seg):
    np.testing.assert_array_equal(draw_sem_seg(image, torch.from_numpy(sem), LABELS), draw_sem_seg(image, sem, LABELS))
    np.testing.assert_array_equal(
        draw_panoptic(image, torch.from_numpy(seg), SEGMENTS, LABELS), draw_panoptic(image, seg, SEGMENTS, LABELS)
    )


def test_panoptic_stuff_has_its_class_colour_and_things_differ(image, seg):
    drawn = draw_panoptic(image, seg, SEGMENTS, LABELS, alpha=1)
    assert (drawn[2, 2] == LABELS.palette()[0]).all() or (drawn[5, 5] == LABELS.palette()[0]).all()
    first, second = drawn[85, 15], drawn[85, 65]
    assert (first == LABELS.palette()[2]).all()
    assert (first != second).any()
    np.testing.assert_array_equal(drawn[45, 5], image[45, 5])  # no segment


def test_panoptic_without_segments_is_the_image(image):
    np.testing.assert_array_equal(draw_panoptic(image, np.zeros((H, W), np.int32), [], LABELS), image)


def test_instances_below_the_threshold_are_left_out(image, instances):
    np.testing.assert_array_equal(draw_instances(image, instances, LABELS, threshold=0.95), image)
    high = draw_instances(image, instances, LABELS, threshold=0.7)
    np.testing.assert_array_equal(high[60:70, 90:99], image[60:70, 90:99])
    low = draw_instances(image, instances, LABELS, threshold=0.5)
    assert (low[62:68, 90:98] != image[62:68, 90:98]).any()


def test_no_instances_and_empty_masks(image):
    none = Instances((H, W), pred_masks=torch.zeros(0, H, W), pred_classes=torch.zeros(0).long(), scores=torch.zeros(0))
    np.testing.assert_array_equal(draw_instances(image, none, LABELS), image)
    empty = Instances((H, W), pred_masks=torch.zeros(1, H, W), pred_classes=torch.tensor([0]), scores=torch.ones(1))
    np.testing.assert_array_equal(draw_instances(image, empty, LABELS), image)


def test_results_are_drawn_by_kind(image, sem, seg, instances):
    scores = torch.nn.functional.one_hot(torch.from_numpy(np.where(sem == 255, 0, sem)).long(), 3).permute(2, 0, 1)
    output = {"sem_seg": scores, "panoptic_seg": (torch.from_numpy(seg), SEGMENTS), "instances": instances}
    drawings = draw_results(image, output, LABELS)
    assert list(drawings) == ["panoptic", "instances", "semantic"]
    assert list(draw_results(image, {"instances": instances}, LABELS)) == ["instances"]
    assert draw_results(image, {}, LABELS) == {}


def test_sizes_that_do_not_fit_are_named(image):
    with pytest.raises(ValueError, match=r"image is 128x96.*semantic map 7x5"):
        draw_sem_seg(image, np.zeros((5, 7), int), LABELS)
    with pytest.raises(ValueError, match="uint8"):
        draw_sem_seg(image.astype(float), np.zeros((H, W), int), LABELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 3), (1, 2000)])
def test_tiny_images(size):
    image = np.zeros((*size, 3), np.uint8)
    sem = np.zeros(size, np.int64)
    assert draw_sem_seg(image, sem, LABELS).shape == image.shape
    assert draw_panoptic(image, sem + 5, SEGMENTS, LABELS).shape == image.shape
    masks = torch.ones(1, *size)
    found = Instances(size, pred_masks=masks, pred_classes=torch.tensor([2]), scores=torch.ones(1))
    assert draw_instances(image, found, LABELS).shape == image.shape


def test_borders_lie_on_both_sides():
    regions = np.zeros((6, 9), int)
    regions[:, 4:] = 1
    np.testing.assert_array_equal(region_borders(regions).any(0).nonzero()[0], [3, 4])
    np.testing.assert_array_equal(region_borders(regions, 2).any(0).nonzero()[0], [2, 3, 4, 5])
    assert not region_borders(np.zeros((5, 5))).any()


def test_instance_colours_start_at_the_class_and_all_differ():
    shades = [instance_color((200, 30, 30), i) for i in range(40)]
    assert shades[0] == (200, 30, 30)
    assert len(set(shades)) == 40
    assert shades == [instance_color((200, 30, 30), i) for i in range(40)]


def test_blend_ends(image):
    color = np.array([1, 2, 3], np.uint8)
    np.testing.assert_array_equal(blend(image, color, 0), image)
    assert (blend(image, color, 1) == color).all()


def test_the_widest_place_is_inside_even_where_the_centre_is_not():
    ring = np.ones((41, 41), bool)
    ring[8:, 8:33] = False  # a horseshoe
    y, x = widest_place(ring)
    assert ring[y, x]


def test_a_caption_for_every_large_part_of_a_class():
    regions = np.zeros((100, 100), int)
    regions[:, 40:60] = 1
    captions = region_captions(regions, {0: "grass", 1: "road"})
    assert sorted(c.text for c in captions) == ["grass", "grass", "road"]
    for caption in captions:
        assert regions[int(caption.y), int(caption.x)] == {"grass": 0, "road": 1}[caption.text]


def test_captions_do_not_cover_each_other():
    blank = np.full((200, 300, 3), 127, np.uint8)
    same_place = [Caption("first", 150, 100, 10), Caption("second", 150, 100, 5)]
    both = write_captions(blank, same_place)
    first = write_captions(blank, same_place[:1])
    written = (first != blank).any(-1)
    np.testing.assert_array_equal(both[written], first[written])
    assert (both != first).any()


def test_text_grows_with_the_image():
    assert text_size(96, 128) == text_size(64, 64) >= 10
    assert text_size(1024, 2048) > 2 * text_size(360, 480)
