"""Videos of any length: windows, links between them against drawn truth, and what is kept of tracks."""

import numpy as np
import pytest
import torch

from mask2former.modeling import build_model
from mask2former.modeling.track_book import TrackBook, TrackChoice
from mask2former.modeling.tracking import PATIENCE
from mask2former.modeling.windows import WindowPredictions, WindowTracker, windows

# T frames, W frames of a window, N drawn objects, Q queries

SIZE, QUERIES, CLASSES, CHANNELS = (48, 64), 9, 3, 16


class Drawn:
    """N discs that cross the picture at their own speeds.

    As a model it predicts them without error, in queries of random order, so that only links can go wrong; one query
    is a weak double of object 0. Queries of one object have like embeddings.
    """

    def __init__(self, length=60, count=4, hidden=(), seed=0):
        g = torch.Generator().manual_seed(seed)
        start, speed = torch.rand(count, 2, generator=g), (torch.rand(count, 2, generator=g) - 0.5) * 0.1
        t = torch.arange(length)[:, None, None]
        height, width = SIZE
        bounce = 1 - ((start + speed * t) % 2 - 1).abs()  # [T,N,2], from 0 to 1
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        centre = bounce[..., None, None] * torch.tensor([height - 1, width - 1])[:, None, None]
        self.truth = ((y - centre[:, :, 0]) ** 2 + (x - centre[:, :, 1]) ** 2) < 64  # [T,N,h,w]
        for number, first, last in hidden:
            self.truth[first:last, number] = False
        self.looks = torch.randn(count, CHANNELS, generator=g)
        self.generator, self.count = g, count
        self.largest_window = 0

    def frames(self):
        """Each frame carries its number."""
        return (torch.full((1, *SIZE), float(t)) for t in range(len(self.truth)))

    def predict(self, window):
        self.largest_window = max(self.largest_window, len(window))
        times = torch.tensor([int(frame[0, 0, 0]) for frame in window])
        present = self.truth[times].transpose(0, 1)  # [N,W,h,w]
        rows = torch.randperm(QUERIES, generator=self.generator)[: self.count + 1]
        probability = torch.eye(CLASSES + 1)[CLASSES].repeat(QUERIES, 1)
        masks = torch.full((QUERIES, len(window), *SIZE), -5.0)
        embedding = torch.randn(QUERIES, CHANNELS, generator=self.generator)
        for number, row in enumerate(rows.tolist()):
            of = number % self.count
            if not present[of].any():
                continue  # the object has no query in this window
            share = 0.9 if number < self.count else 0.2
            probability[row] = torch.tensor([0.0] * CLASSES + [1 - share])
            probability[row, of % CLASSES] = share
            masks[row] = torch.where(present[of], 5.0, -5.0)
            embedding[row] = self.looks[of] + 0.1 * torch.randn(CHANNELS, generator=self.generator)
        return WindowPredictions(probability, embedding, masks, SIZE)


def identities(drawn, tracker):
    """For each object the ids it was given, frame by frame where it is visible, and the book."""
    book, seen = TrackBook(SIZE, TrackChoice(tracker.top_k)), [[] for _ in range(drawn.count)]
    for t, objects in enumerate(tracker.stream(drawn.predict, drawn.frames(), book)):
        strong = [one for one in objects if one.score > 0.5]
        for number, mask in enumerate(drawn.truth[t].numpy()):
            same = [one.id for one in strong if np.array_equal(one.mask, mask)]
            if mask.any():
                assert same, f"object {number} is missing in frame {t}"
                seen[number].append(same[0])
    return seen, book


@pytest.mark.parametrize(
    ("length", "size", "overlap"), [(10, 4, 1), (9, 4, 1), (7, 4, 2), (3, 4, 2), (8, 0, 2), (6, 2, 0)]
)
def test_windows_hand_out_each_frame_once(length, size, overlap):
    new = []
    for window, shared in windows(iter(range(length)), size, overlap):
        assert len(window) == min(size or length, length)
        assert shared >= overlap or not new
        assert window[:shared] == new[len(new) - shared :]
        new += window[shared:]
    assert new == list(range(length))


@pytest.mark.parametrize("overlap", [0, 1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_identities_survive_window_borders(overlap, seed):
    drawn = Drawn(seed=seed)
    seen, book = identities(drawn, WindowTracker(8, overlap, top_k=6))
    assert [len(set(ids)) for ids in seen] == [1] * drawn.count
    assert drawn.largest_window == 8
    best = [track for track in book.tracks() if track.score > 0.5]
    assert len(best) == drawn.count
    for track in best:
        number = [ids[0] for ids in seen].index(track.id)
        assert len(track.masks) == len(drawn.truth)
        assert np.array_equal(np.stack(list(track.masks)), drawn.truth[:, number].numpy())
        assert track.category == number % CLASSES


def test_a_thousand_frames_without_a_switch():
    drawn = Drawn(length=1000, hidden=[(1, 305, 319), (2, 700, 712)])
    seen, book = identities(drawn, WindowTracker(10, 2, top_k=6))
    assert [len(set(ids)) for ids in seen] == [1] * drawn.count
    assert len(book._open) <= 6 * (PATIENCE // 8 + 2)  # those of the last windows


def test_an_object_that_was_hidden_over_a_border_keeps_its_identity():
    drawn = Drawn(hidden=[(1, 5, 19), (2, 14, 18)])
    seen, _ = identities(drawn, WindowTracker(8, 2, top_k=6))
    assert [len(set(ids)) for ids in seen] == [1] * drawn.count


def test_an_object_that_comes_late_is_a_new_track():
    drawn = Drawn(hidden=[(3, 0, 30)])
    seen, _ = identities(drawn, WindowTracker(8, 2, top_k=6))
    assert len({ids[-1] for ids in seen}) == drawn.count


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        (TrackChoice(5), 5),  # the double of object 0 is one of the best five
        (TrackChoice(3), 3),
        (TrackChoice(100), QUERIES),
        (TrackChoice(100, min_score=0.5), 5),  # the double is followed, since it is not sure to be none
        (TrackChoice(100, min_score=0.0), QUERIES),
    ],
)
def test_the_choice_says_which_queries_are_followed(choice, found):
    drawn, followed = Drawn(length=8), []
    book = TrackBook(SIZE, choice)
    book.score = lambda ids, probability, frames: (
        followed.append(len(ids)),
        TrackBook.score(book, ids, probability, frames),
    )
    list(WindowTracker(8, 2, top_k=2).stream(drawn.predict, drawn.frames(), book))
    assert followed == [found]


def test_windows_of_a_model_equal_the_whole_clip_where_one_window_holds_it(tiny_cfg):
    tiny_cfg.merge_from_list(
        [
            *("MODEL.META_ARCHITECTURE", "VideoMaskFormer", "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
            *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False, "TEST.WINDOW_SIZE", 5, "TEST.WINDOW_OVERLAP", 1),
        ]
    )
    model = build_model(tiny_cfg).double().eval()
    g = torch.Generator().manual_seed(0)
    frames = [torch.randint(0, 256, (3, 60, 90), generator=g, dtype=torch.uint8) for _ in range(13)]
    with torch.no_grad():
        (whole,) = model([{"image": frames[:5], "height": 40, "width": 60, "length": 5}])
        tracks = model.tracker.run(model.predict_window, iter(frames[:5]), (40, 60))
        (long,) = model([{"image": iter(frames), "height": 40, "width": 60, "length": 13}])
    assert [track.category for track in tracks] == whole["pred_labels"]
    np.testing.assert_allclose([track.score for track in tracks], whole["pred_scores"], rtol=1e-5)
    for track, mask in zip(tracks, whole["pred_masks"]):
        assert np.array_equal(np.stack(list(track.masks)), mask.numpy())
    assert [len(mask) for mask in long["pred_masks"]] == [13] * len(long["pred_scores"])
    assert [len(mask.rles()) for mask in long["pred_masks"]] == [13] * len(long["pred_scores"])
