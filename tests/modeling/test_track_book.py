"""What is kept of tracks: which of them, with which class and score, and in how many bytes."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch

from mask2former.modeling.track_book import TrackBook, TrackChoice
from mask2former.structures import rle_encode

# T frames, N tracks at a time

SIZE = (48, 64)
PIXEL = {"size": list(SIZE), "counts": rle_encode(np.eye(*SIZE, dtype=bool))["counts"]}


def detailed(length, choice, life=20, count=5, keep=True):
    """A book after so many frames with noise masks, of tracks that live for some time; and the bytes of a mask."""
    random, book = np.random.default_rng(0), TrackBook(SIZE, choice, keep)
    for t in range(length):
        ids = [1 + n + count * (t // life) for n in range(count)]
        rles = [rle_encode(random.random(SIZE) < 0.5) for _ in ids]
        book.score(ids, torch.tensor([[0.9, 0.1]]).expand(count, -1), 1)
        book.add_frame(ids, rles)
        book.close(lambda track, first=ids[0]: track >= first)
    return book, len(rles[0]["counts"])


def bytes_held(*args, **options):
    """Memory that the book takes, by Python's own count, and the size of a mask."""
    gc.collect()
    tracemalloc.start()
    try:
        held = detailed(*args, **options)
        gc.collect()
        return tracemalloc.get_traced_memory()[0], held[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("life", [20, 10**9])
def test_memory_does_not_grow_with_the_frames(life):
    """Of 900 frames with five masks of 1.5 KB 6.7 MB would stay."""
    detailed(2, TrackChoice(5))  # what is made once
    (short, mask), (long, _) = (bytes_held(length, TrackChoice(5), life=life) for length in (100, 1000))
    assert mask > 1400
    assert short < 20_000
    assert long < short + 10_000


def test_a_track_that_has_ended_takes_no_more_than_its_summary():
    detailed(2, TrackChoice(5))
    choice = TrackChoice(10_000, min_score=0.5, one_class=True)
    (short, _), (long, _) = (bytes_held(length, choice, life=2) for length in (100, 400))
    ended = 300 // 2 * 5
    assert (long - short) / ended < 250
    (short, _), (long, _) = (bytes_held(length, choice, life=2, keep=False) for length in (100, 400))
    assert long < short + 10_000


def test_masks_are_there_when_they_are_asked_for():
    book, _ = detailed(50, TrackChoice(10_000, one_class=True))
    random = np.random.default_rng(0)
    truth = np.stack([random.random((5, *SIZE)) < 0.5 for _ in range(50)])  # [T,N,H,W]
    tracks = sorted(book.tracks(), key=lambda track: track.id)
    assert [track.id for track in tracks] == list(range(1, 16))
    for track in tracks:
        first, n = (track.id - 1) // 5 * 20, (track.id - 1) % 5
        expected = np.zeros_like(truth[:, n])
        expected[first : first + 20] = truth[first : first + 20, n]
        assert np.array_equal(np.stack(list(track.masks)), expected)


def test_ended_tracks_are_forgotten_unless_they_are_among_the_best():
    book = TrackBook(SIZE, TrackChoice(2))
    for number in range(20):
        book.score([number], torch.tensor([[0.0, number / 20]]), frames=1)
        book.add_frame([number], [PIXEL])
        book.close(lambda track: False)
        assert len(book._ended) <= 2 * 2
    assert [(track.id, track.category) for track in book.tracks()] == [(19, 1), (18, 1)]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (TrackChoice(10), [(1, 0), (2, 1), (1, 2), (2, 0)]),  # the published top-k, but no pair of score 0
        (TrackChoice(3), [(1, 0), (2, 1), (1, 2)]),
        (TrackChoice(10, one_class=True), [(1, 0), (2, 1)]),
        (TrackChoice(10, min_score=0.3), [(1, 0), (2, 1), (1, 2)]),
        (TrackChoice(10, min_score=0.3, one_class=True), [(1, 0), (2, 1)]),
    ],
)
def test_the_choice_of_tracks_and_classes(choice, expected, ended):
    book = TrackBook(SIZE, choice)
    book.score([1, 2, 3], torch.tensor([[0.6, 0.0, 0.4], [0.1, 0.5, 0.0], [0.0, 0.0, 0.0]]), frames=3)
    book.add_frame([1, 2, 3], [PIXEL] * 3)
    if ended:
        book.close(lambda track: False)
    assert [(track.id, track.category) for track in book.tracks()] == expected


def test_a_score_is_the_mean_over_the_frames_of_all_windows():
    book = TrackBook(SIZE, TrackChoice(1))
    book.score([1], torch.tensor([[0.2, 0.8]]), frames=3)
    book.score([1], torch.tensor([[0.6, 0.4]]), frames=1)
    (one,) = book.add_frame([1], [PIXEL])
    assert (one.category, one.score) == (1, pytest.approx(0.7))
    assert book.tracks()[0].score == pytest.approx(0.7)


def test_a_book_that_keeps_nothing():
    book, _ = detailed(3, TrackChoice(5), keep=False)
    assert book.tracks() == []
