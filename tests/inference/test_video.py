"""Videos through models of clips and of images: ids, order, errors, and memory that does not grow with the length."""

import gc
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from mask2former.config import get_cfg
from mask2former.inference import Predictor, VideoPredictor
from mask2former.modeling import META_ARCH
from mask2former.structures import Instances
from mask2former.utils.errors import UserError
from tests.modeling.conftest import tiny_config

# T frames, H W frame size

SIZE = (40, 60)
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}  # of three drawn squares


def drawn(length=25):
    """Frames with three squares that move, the third of them in the later half only."""
    for t in range(length):
        frame = np.zeros((*SIZE, 3), np.uint8)
        for number, (left, top) in {1: (t, 2), 2: (50 - t, 15), 3: (20, 28)}.items():
            if number < 3 or t > length // 2:
                frame[top : top + 10, left : left + 10] = COLOURS[number]
        yield frame


class ByColour(nn.Module):
    """An image model that finds the drawn squares in random order, as instances or segments; all are of class 1."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, inputs):
        image = inputs[0]["image"].permute(1, 2, 0)
        squares = [(image == torch.tensor(colour)).all(2) for colour in COLOURS.values()]
        squares = [square for square in squares if square.any()]
        masks = torch.stack([squares[i] for i in torch.randperm(len(squares), generator=self.generator)])
        if self.kind == "panoptic":
            ids = (masks * torch.arange(2, len(masks) + 2)[:, None, None]).sum(0)
            info = [{"id": i + 2, "isthing": True, "category_id": 1} for i in range(len(masks))]
            info.append({"id": 1, "isthing": False, "category_id": 0})
            return [{"panoptic_seg": (ids.clamp(min=1).int(), info)}]
        if self.kind == "semantic":
            return [{"sem_seg": torch.stack([~masks.any(0), masks.any(0)]).float()}]
        scores = torch.cat([torch.full((len(masks),), 0.8), torch.tensor([0.1])])
        masks, classes = torch.cat([masks, masks[:1]]), torch.ones(len(scores), dtype=torch.int64)
        return [{"instances": Instances(SIZE, pred_masks=masks, scores=scores, pred_classes=classes)}]


@pytest.fixture
def predictor(monkeypatch):
    """A function that makes the predictor of an image model."""

    def make(kind):
        monkeypatch.setitem(META_ARCH._obj_map, "ByColour", lambda cfg, labels: ByColour(kind))
        cfg = get_cfg()
        cfg.merge_from_list(
            [
                *("MODEL.META_ARCHITECTURE", "ByColour", "MODEL.DEVICE", "cpu", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2),
                *("INPUT.MIN_SIZE_TEST", 0, "INPUT.FORMAT", "RGB"),
            ]
        )
        return VideoPredictor(cfg)

    return make


def video_config(window, overlap=2):
    cfg = tiny_config()
    cfg.merge_from_list(
        [
            *("MODEL.META_ARCHITECTURE", "VideoMaskFormer", "MODEL.MASK_FORMER.TEST.SEMANTIC_ON", False),
            *("MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False, "INPUT.MIN_SIZE_TEST", 0),
            *("TEST.WINDOW_SIZE", window, "TEST.WINDOW_OVERLAP", overlap),
        ]
    )
    return cfg


@pytest.mark.parametrize("kind", ["instance", "panoptic"])
def test_objects_of_an_image_model_keep_their_ids(predictor, kind):
    run, seen = predictor(kind), {number: set() for number in COLOURS}
    for t, (frame, result) in enumerate(zip(drawn(), run(drawn()))):
        assert result.index == t
        assert np.array_equal(result.image, frame)
        things = [one for one in result.objects if one.isthing]
        for number, colour in COLOURS.items():
            truth = (frame == colour).all(2)
            found = [one for one in things if np.array_equal(one.mask, truth)]
            assert len(found) == truth.any()
            seen[number].update(one.id for one in found)
    assert [len(ids) for ids in seen.values()] == [1, 1, 1]
    assert len(set.union(*seen.values())) == 3
    tracks = {track.id: track for track in run.tracks()}
    assert set.union(*seen.values()) <= tracks.keys()
    third = tracks[seen[3].pop()]
    assert [rle is None for rle in third.masks.rles()] == [True] * 13 + [False] * 12
    assert third.category == 1


@pytest.mark.parametrize("kind", ["panoptic", "semantic"])
def test_stuff_has_one_track_per_class(predictor, kind):
    run = predictor(kind)
    ids = [{one.category: one.id for one in result.objects if not one.isthing} for result in run(drawn())]
    assert ids == [ids[0]] * 25


def test_frames_are_read_as_they_are_needed():
    run, read = VideoPredictor(video_config(window=6), min_score=0.0), []
    results = run(frame for t, frame in enumerate(drawn(20)) if read.append(t) is None)
    most = max(len(read) - result.index for result in results)
    assert len(read) == 20
    assert most <= 6 + 1
    assert {len(track.masks) for track in run.tracks()} == {20}


@pytest.mark.parametrize("window", [0, 6])
def test_the_number_of_tracks_has_no_limit_but_their_score(window):
    """TEST.DETECTIONS_PER_VIDEO is that of evaluations."""
    cfg = video_config(window)
    cfg.TEST.DETECTIONS_PER_VIDEO = 2
    everything = VideoPredictor(cfg, min_score=0.0)
    seen = {one.id for result in everything(drawn(7)) for one in result.objects}
    tracks = everything.tracks()
    assert len(seen) > 2
    assert seen <= {track.id for track in tracks}
    assert len({track.id for track in tracks}) == len(tracks) >= cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    limit = sorted(track.score for track in tracks)[len(tracks) // 2]
    some = VideoPredictor(cfg, min_score=limit)
    torch.manual_seed(0)
    shown = [one for result in some(drawn(7)) for one in result.objects]
    assert all(one.score >= limit for one in shown)
    assert all(track.score >= limit for track in some.tracks())


def test_the_whole_video_is_the_default_and_scores_filter():
    run = VideoPredictor(video_config(window=0), min_score=0.0)
    results = list(run(drawn(7)))
    assert [result.index for result in results] == list(range(7))
    kept = VideoPredictor(video_config(window=0), min_score=1.0)
    assert [result.objects for result in kept(drawn(7))] == [[]] * 7
    assert kept.tracks() == []


def test_a_single_image_is_no_video():
    with pytest.raises(UserError, match="use mask2former.inference.VideoPredictor"):
        Predictor(video_config(window=4))(np.zeros((*SIZE, 3), np.uint8))


def test_a_video_without_frames_is_refused():
    with pytest.raises(UserError, match="no frames"):
        next(VideoPredictor(video_config(window=4))([]))


def test_results_before_a_bad_frame_are_kept(predictor):
    def broken():
        yield from drawn(9)
        raise UserError("frame 9 is damaged")

    def growing():
        yield from drawn(9)
        yield np.zeros((50, 60, 3), np.uint8)

    for run in (predictor("instance"), VideoPredictor(video_config(window=4))):
        for frames, said in (
            (broken(), "frame 9 is damaged"),
            (growing(), "Frame 9 has 60x50 pixels, the first one 60x40"),
        ):
            done = []
            with pytest.raises(UserError, match=said):
                for result in run(frames):
                    done.append(result.index)
            assert done == list(range(9))


class Noise(nn.Module):
    """An image model whose two classes are noise: of each frame several KB of run lengths."""

    def forward(self, inputs):
        return [{"sem_seg": torch.rand(2, *inputs[0]["image"].shape[1:])}]


@pytest.mark.parametrize("keep", [True, False])
def test_bytes_in_memory_do_not_grow_with_the_length(predictor, monkeypatch, keep):
    run = predictor("semantic")
    run.images.model, run.keep_tracks = Noise(), keep
    held, frames = [], [np.zeros((80, 80, 3), np.uint8)] * 4
    for length in (100, 100, 1000):  # the first for what is made once
        gc.collect()
        tracemalloc.start()
        size = sum(
            len(one.rle["counts"]) for result in run(frames[t % 4] for t in range(length)) for one in result.objects
        )
        held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert size > 5_000_000
    assert held[2] < held[1] + 0.05 * size  # Python counts torch's tensors until their addresses are used again
    if keep:
        assert sum(len(rle["counts"]) for track in run.tracks() for rle in track.masks.rles()) == size
    else:
        with pytest.raises(ValueError, match="keep_tracks is False"):
            run.tracks()


MEASURED = """
import resource, sys, torch
sys.path.insert(0, {root!r})
from tests.inference.test_video import drawn, video_config
from mask2former.inference import VideoPredictor
torch.set_num_threads(1)
cfg = video_config(window=8)
cfg.INPUT.MIN_SIZE_TEST = 40  # a fast model; frames and masks of a size that would show
run = VideoPredictor(cfg, min_score=0.0)
frames = (frame.repeat(5, 0).repeat(5, 1) for _ in range({length} // 20) for frame in drawn(20))
assert sum(1 for _ in run(frames)) == {length}
assert len(run.tracks()) >= 5
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(repo_dir):
    def peak(length):
        code = MEASURED.format(root=str(repo_dir), length=length)
        return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)

    assert peak(1000) < 1.1 * peak(100)
