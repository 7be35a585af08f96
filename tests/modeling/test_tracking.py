"""The linker: what makes two objects of neighbouring windows one track."""

import torch

from mask2former.modeling.tracking import PATIENCE, TrackLinker, WindowObjects

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
