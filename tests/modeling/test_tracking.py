"""The linker: what makes two objects of neighbouring windows one track."""

import pytest
import torch

from mask2former.modeling import tracking
from mask2former.modeling.tracking import PATIENCE, TrackLinker, WindowObjects, overlaps

# N objects

SCORES = torch.tensor([[0.9, 0.0, 0.1]])


def bars(*spans, classes=None, embedding=None):
    """Objects of one frame that cover columns [first, last) of a row of 100 pixels; none for (0, 0)."""
    masks = torch.zeros(len(spans), 1, 1, 100, dtype=torch.bool)
    for mask, (first, last) in zip(masks, spans):
        mask[..., first:last] = True
    return WindowObjects(masks, SCORES.expand(len(spans), -1) if classes is None else torch.tensor(classes), embedding)


def test_masks_that_overlap_are_one_object():
    linker = TrackLinker()
    assert linker.link(bars((0, 20), (50, 70)), 0) == [1, 2]
    assert linker.link(bars((52, 72), (3, 23), (80, 90)), 0) == [2, 1, 3]


def test_no_objects_before_now_or_after():
    linker = TrackLinker()
    assert linker.link(bars(), 0) == []
    assert linker.link(bars((0, 20)), 0) == [1]
    assert linker.link(bars(), 0) == []
    assert linker.link(bars((0, 20)), 0) == [1]


def test_a_sure_link_is_not_given_up_for_two_doubtful_ones():
    linker = TrackLinker()
    first = bars((0, 40), (36, 46))
    assert linker.link(first, 0) == [1, 2]
    # the second track is gone; a new object touches the first. Two links of a little each would be possible
    assert linker.link(bars((2, 41), (0, 6)), 0)[0] == 1


def test_the_class_decides_between_equal_masks():
    linker = TrackLinker()
    two = [[0.9, 0.0, 0.1], [0.1, 0.1, 0.8]]
    assert linker.link(bars((0, 20), (0, 20), classes=two), 0) == [1, 2]
    assert linker.link(bars((0, 20), (0, 20), classes=two[::-1]), 0) == [2, 1]


def test_a_stranger_in_an_old_place_is_new():
    """Of another class, a touch is no reason to be the same; with the same mask it is, while the track is in sight."""
    cat, dog = [[0.9, 0.0, 0.1]], [[0.0, 0.9, 0.1]]
    for span, pause, expected in (((15, 35), 0, 2), ((0, 20), 0, 1), ((0, 20), 3, 2)):
        linker = TrackLinker()
        assert linker.link(bars((0, 20), classes=cat), 0) == [1]
        for _ in range(pause):
            linker.link(bars(), 0)
        assert linker.link(bars(span, classes=dog), 0) == [expected]


def test_objects_that_both_windows_see_in_different_places_are_two_whatever_they_look_like():
    linker, looks = TrackLinker(), torch.ones(1, 4)
    assert linker.link(bars((0, 20), embedding=looks), 1) == [1]
    assert linker.link(bars((50, 70), embedding=looks), 1) == [2]


def test_an_object_out_of_sight_returns_by_its_looks_until_patience_ends():
    looks = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    for pause, expected in ((PATIENCE, 1), (PATIENCE + 1, 3)):
        linker = TrackLinker()
        linker.link(bars((0, 20), (50, 70), embedding=looks), 0)
        for _ in range(pause):
            linker.link(bars((50, 70), embedding=looks[1:]), 0)
        assert linker.knows(1) == (pause <= PATIENCE)
        assert linker.link(bars((80, 99), (50, 70), embedding=looks), 0) == [expected, 2]


@pytest.mark.parametrize(("count", "known", "frames"), [(7, 5, 1), (3, 9, 4), (0, 2, 1), (2, 0, 3)])
def test_overlaps_are_those_of_the_pixels(count, known, frames):
    g = torch.Generator().manual_seed(count)
    first, second = (torch.rand(n, frames, 13, 17, generator=g) < 0.3 for n in (count, known))
    first[-1:], second[:1] = False, False
    iou, visible = overlaps(first, second)
    assert iou.shape == visible.shape == (count, known)
    for n in range(count):
        for m in range(known):
            shared, either = (first[n] & second[m]).sum(), (first[n] | second[m]).sum()
            assert iou[n, m] == shared / either.clamp(min=1)
            assert visible[n, m] == (first[n].any() and second[m].any())


def test_pixels_are_counted_exactly_under_autocast():
    """More than half precision can count."""
    first, second = torch.ones(1, 1, 300, 301, dtype=torch.bool), torch.ones(1, 1, 300, 301, dtype=torch.bool)
    second[..., 0] = False
    with torch.autocast("cpu", torch.bfloat16):
        assert overlaps(first, second)[0].item() == pytest.approx(300 / 301, abs=1e-6)


@pytest.mark.parametrize("overlap", [0, 2])
def test_how_many_tracks_are_compared_at_once_changes_nothing(monkeypatch, overlap):
    found = []
    for at_once in (1, 3, 64):
        monkeypatch.setattr(tracking, "_AT_ONCE", at_once)
        g, linker, ids = torch.Generator().manual_seed(0), TrackLinker(), []
        for window in range(6):
            count = int(torch.randint(3, 9, (1,), generator=g))
            masks = torch.rand(count, 3, 9, 11, generator=g) < 0.5
            probability = torch.rand(count, 4, generator=g).softmax(1)
            objects = WindowObjects(masks, probability, torch.randn(count, 5, generator=g))
            ids.append(linker.link(objects, overlap if window else 0))
        found.append(ids)
    assert found[0] == found[1] == found[2]
    assert any(track in ids for ids in found[0][1:] for track in found[0][0])


def test_memory_of_a_window_is_not_held_by_tracks_out_of_sight():
    linker = TrackLinker()
    linker.link(WindowObjects(torch.ones(2, 8, 4, 4, dtype=torch.bool), SCORES.expand(2, -1)), 0)
    linker.link(WindowObjects(torch.zeros(0, 8, 4, 4, dtype=torch.bool), SCORES[:0]), 2)
    assert linker.knows(1)
    held = [known.objects.masks.untyped_storage().nbytes() for known in linker._known]
    assert held == [2 * 4 * 4, 0]


def test_classes_that_are_not_numbers_are_linked_to_nothing():
    linker, nothing = TrackLinker(), [[float("nan")] * 3]
    assert linker.link(bars((0, 20), classes=nothing), 0) == [1]
    assert linker.link(bars((0, 20), classes=nothing), 0) == [2]
