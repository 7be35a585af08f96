"""Identity switches and stability: cases worked out by hand, and what must not change them."""

import numpy as np
import pytest

from mask2former.evaluation.encoding import encode_masks
from mask2former.evaluation.video_identity import match_tracks, track_errors, tracking_figures
from mask2former.evaluation.video_tracks import VideoTracks, intersections

SIZE, LENGTH = (60, 80), 8


def track(x, y=10, width=20, height=10, seen=range(LENGTH)):
    """bool [T,H,W], a box whose left edge is x, or x[t]."""
    masks = np.zeros((LENGTH, *SIZE), bool)
    for t in seen:
        left = x if isinstance(x, int) else x[t]
        masks[t, y : y + height, left : left + width] = True
    return masks


def tracks(masks, **columns):
    defaults = {"category_id": [1] * len(masks), "score": [0.9] * len(masks), "iscrowd": [0] * len(masks)}
    columns = {name: np.array(values) for name, values in {**defaults, **columns}.items()}
    return VideoTracks(1, SIZE, LENGTH, [encode_masks(m) for m in masks], columns)


def figures(predicted, true):
    return tracking_figures(track_errors(predicted, true, intersections(predicted, true)))


def cut(first, second, at):
    """`first` before frame `at`, `second` from there on."""
    return np.concatenate([first[:at], second[at:]])


UPPER, LOWER = track(list(range(LENGTH))), track(30, y=35)


def test_one_switch_for_each_object_of_two_that_change_names():
    true = tracks([UPPER, LOWER])
    found = figures(tracks([cut(UPPER, LOWER, 3), cut(LOWER, UPPER, 3)]), true)
    assert found["IDSw"] == 2
    assert found["IDSw_rate"] == 100 * 2 / 16
    assert found["Recall"] == 100
    assert found["Unstable"] == 0  # the masks are right in each frame, whatever their names


def test_a_track_that_pauses_is_no_switch_and_one_that_starts_anew_is():
    true = tracks([UPPER])
    paused = track(list(range(LENGTH)), seen=(0, 1, 5, 6, 7))
    found = figures(tracks([paused]), true)
    assert (found["IDSw"], found["Recall"]) == (0, pytest.approx(100 * 5 / 8))
    assert found["Unstable_fragments"] == pytest.approx(100 * 2 / 7)  # lost once, found once, of seven changes
    anew = figures(tracks([cut(paused, 0 * paused, 3) > 0, cut(0 * paused, paused, 3) > 0]), true)
    assert anew["IDSw"] == 1


def test_frames_without_the_object_do_not_count():
    hidden = track(list(range(LENGTH)), seen=(0, 1, 5, 6, 7))
    found = figures(tracks([UPPER]), tracks([hidden]))
    assert (found["IDSw"], found["Recall"], found["Unstable"]) == (0, 100, 0)


def test_an_object_keeps_its_track_while_it_fits():
    """A better track in between takes over only what the kept one has left."""
    true, shifted = tracks([track(20)]), track(24)  # IoU 16 / 24
    better = track(20, seen=(3, 4))
    assert figures(tracks([shifted, better]), true)["IDSw"] == 0
    shifted[3:5] = track(40)[3:5]  # no longer on the object
    assert figures(tracks([shifted, better]), true)["IDSw"] == 2


def test_classes_scores_and_crowds_choose_who_takes_part():
    true = tracks([UPPER])
    assert figures(tracks([UPPER], category_id=[2]), true)["Recall"] == 0
    assert figures(tracks([UPPER], score=[0.49]), true)["Recall"] == 0
    none = figures(tracks([UPPER]), tracks([UPPER], iscrowd=[1]))
    assert all(np.isnan(value) for name, value in none.items() if name != "IDSw")
    assert none["IDSw"] == 0


def test_stability_is_the_spread_of_centre_scale_and_ratio():
    true = tracks([track(20)])
    assert figures(tracks([track(23, width=18)]), true)["Unstable"] == pytest.approx(0)  # wrong alike in every frame
    shaky = figures(tracks([track([20 + 4 * (t % 2) for t in range(LENGTH)])]), true)
    assert shaky["Unstable_position"] == pytest.approx(100 * 2 / 20)  # half of 4 pixels, in widths
    assert shaky["Unstable_shape"] == shaky["Unstable_fragments"] == 0
    grows = track(20)
    grows[::2, :, 32:] = False  # of width 12 and 20 in turn
    found = figures(tracks([grows]), true)
    assert found["Unstable_position"] == pytest.approx(100 * 2 / 20)
    assert found["Unstable_shape"] == pytest.approx(100 * ((1 - np.sqrt(0.6)) / 2 + (1 - 0.6) / 2))


def test_matches_are_one_to_one_and_as_many_as_can_be():
    rng = np.random.default_rng(0)
    overlaps = rng.random((50, 4, 5))
    matches = match_tracks(overlaps)
    for t, row in enumerate(matches):
        used = row[row >= 0]
        assert len(set(used)) == len(used)
        free = np.setdiff1d(np.arange(4), used)
        assert not (overlaps[t][free][:, row < 0] >= 0.5).any()
        assert all(overlaps[t, d, g] >= 0.5 for g, d in enumerate(row) if d >= 0)
    order = rng.permutation(4)
    again = match_tracks(overlaps[:, order])
    np.testing.assert_array_equal(np.where(again >= 0, order[again], -1), matches)
    assert match_tracks(np.zeros((3, 0, 2))).tolist() == [[-1, -1]] * 3
    one = match_tracks(np.array([[[0.9, 0.6], [0.6, 0.2]]]))  # the greatest IoU alone would leave an object out
    assert one.tolist() == [[1, 0]]


def test_intersections_equal_pixels():
    rng = np.random.default_rng(0)
    masks = rng.random((7, LENGTH, *SIZE)) > 0.6
    masks[:, :, :20] &= rng.random((7, LENGTH, 1, 1)) > 0.5
    masks &= rng.random((7, LENGTH, 1, 1)) > 0.3  # missing frames
    first, second = masks[:4], masks[3:]
    expected = np.einsum("dthw,gthw->tdg", first.astype(np.int64), second.astype(np.int64))
    np.testing.assert_array_equal(intersections(tracks(first), tracks(second)), expected)
    assert intersections(tracks(first), tracks([])).shape == (LENGTH, 4, 0)
