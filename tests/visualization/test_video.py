"""Drawn frames of videos: colours that stay, names and ids, id maps."""

import sys

import numpy as np
import pytest

from mask2former.structures import TrackedObject, rle_encode
from mask2former.structures.labels import LabelSet
from mask2former.visualization import video
from mask2former.visualization.video import FramePainter, id_map

LABELS = LabelSet(("sky", "car"), thing_ids=(1,), colors=((40, 60, 200), (200, 40, 40)))
GREY = np.full((60, 90, 3), 128, np.uint8)


def box(number, top, left, height=20, width=20, category=1, isthing=True):
    mask = np.zeros(GREY.shape[:2], bool)
    mask[top : top + height, left : left + width] = True
    return TrackedObject(number, category, 0.9, rle_encode(mask), isthing)


@pytest.fixture
def written(monkeypatch):
    """The captions of each drawn frame; nothing is written, so that pixels show colours alone."""
    texts = []

    def note(image, captions):
        texts.append([c.text for c in captions])
        return image

    monkeypatch.setattr(video, "write_captions", note)
    # by name, since the package has a function of the same name as this module
    monkeypatch.setattr(sys.modules["mask2former.visualization.draw"], "write_captions", note)
    return texts


@pytest.mark.parametrize(
    "stuff", [[], [box(9, 0, 0, 60, 90, category=0, isthing=False)]], ids=["instances", "panoptic"]
)
def test_a_track_keeps_its_colour_whoever_comes_and_goes(written, stuff):
    painter = FramePainter(LABELS)
    frames = [
        [*stuff, box(1, 5, 5), box(2, 5, 60)],
        [*stuff, box(3, 35, 5), box(2, 5, 60), box(1, 5, 30)],
        [*stuff, box(2, 5, 60)],
        [*stuff, box(2, 5, 60), box(1, 5, 5)],
    ]
    drawn = [painter.draw(GREY, objects) for objects in frames]
    first, second = drawn[0][15, 15], drawn[0][15, 70]
    assert (first != second).any()
    assert (drawn[1][15, 40] == first).all()
    assert all((picture[15, 70] == second).all() for picture in drawn)
    assert (drawn[3][15, 15] == first).all()
    third = drawn[1][45, 15]
    assert (third != first).any()
    assert (third != second).any()


def test_names_and_ids_are_written_scores_are_not(written):
    painter = FramePainter(LABELS)
    painter.draw(GREY, [box(1, 5, 5), box(12, 5, 60)])
    painter.draw(GREY, [box(9, 30, 0, 30, 90, category=0, isthing=False), box(12, 5, 60)])
    assert sorted(written[0]) == ["car 1", "car 12"]
    assert sorted(written[1]) == ["car 12", "sky"]


def test_an_empty_frame_is_the_frame():
    painter = FramePainter(LABELS)
    assert (painter.draw(GREY, []) == GREY).all()
    painter.draw(GREY, [box(9, 0, 0, category=0, isthing=False)])
    assert (painter.draw(GREY, []) == GREY).all()


def test_the_frame_is_not_painted_on():
    pixels = GREY.copy()
    FramePainter(LABELS).draw(pixels, [box(1, 5, 5)])
    assert (pixels == GREY).all()


def test_id_maps_have_the_smaller_object_on_top():
    ids = id_map([box(300, 10, 10, 5, 5), box(2, 0, 0, 40, 40)], GREY.shape[:2])
    assert ids.dtype == np.uint16
    assert (ids[12, 12], ids[0, 0], ids[50, 50]) == (300, 2, 0)
    assert id_map([], (4, 5)).shape == (4, 5)
    with pytest.raises(ValueError, match="70000"):
        id_map([box(70000, 0, 0)], GREY.shape[:2])
