"""demo.py --video-input: files and folders in and out, tracks and id maps, and runs that end early."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask2former.config import get_cfg
from mask2former.inference import FrameResult
from mask2former.structures import Track, TrackedObject, TrackMasks, rle_encode
from mask2former.structures.labels import LabelSet

sys.path.insert(0, str(Path(__file__).parents[1] / "inference"))
from videos import pictures, read_video, write_video

LABELS = LabelSet(("sky", "car"), thing_ids=(1,))
WINDOW = 3


class FakeVideoPredictor:
    """One object that moves; answers in windows of three frames, as the real one."""

    interrupt_at = None

    def __init__(self, cfg, min_score=0.5, keep_tracks=True):
        self.images, self.cfg, self.labels, self.keep_tracks = self, cfg, LABELS, keep_tracks
        self._rles = {}

    def __call__(self, frames):
        error, pending, index = None, [], 0
        frames = iter(frames)
        while error is None:
            try:
                pending.append(next(frames))
            except (StopIteration, ValueError) as found:
                error = found
            if len(pending) == WINDOW or error:
                for image in pending:
                    if index == self.interrupt_at:
                        raise KeyboardInterrupt
                    yield self._result(index, image)
                    index += 1
                pending = []
        if isinstance(error, ValueError):
            raise error

    def _result(self, index, image):
        mask = np.zeros(image.shape[:2], bool)
        mask[8:28, index % 40 : index % 40 + 20] = True
        self._rles[index] = rle_encode(mask)
        return FrameResult(index, image, [TrackedObject(7, 1, 0.9, self._rles[index])])

    def tracks(self):
        assert self.keep_tracks
        length = max(self._rles, default=-1) + 1
        return [Track(7, 1, 0.9, TrackMasks(self._rles, length, (48, 64)))]


@pytest.fixture
def fake(demo, monkeypatch):
    monkeypatch.setattr(demo, "VideoPredictor", FakeVideoPredictor)
    monkeypatch.setattr(demo, "config_of", lambda args: get_cfg())
    return FakeVideoPredictor


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "frames"
    made.mkdir()
    for t, picture in enumerate(pictures(8)):
        Image.fromarray(picture).save(made / f"{t:03d}.png")
    return made


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_of_frames_becomes_a_folder_of_drawings(demo, fake, folder, tmp_path, capsys):
    args = ["--video-input", str(folder), "--output", str(tmp_path / "out"), "--frame-rate", "10"]
    assert demo.main(args) == 0
    assert names(tmp_path / "out") == names(folder)
    for t, picture in enumerate(pictures(8)):
        drawn = np.array(Image.open(tmp_path / "out" / f"{t:03d}.png"))
        changed = (drawn != picture).any(2)
        assert changed[8:28, t : t + 20].mean() > 0.9
        assert not changed[40:].any()
    captured = capsys.readouterr()
    assert "8 of 8 frames drawn" in captured.out
    assert "× real time (10 frames per second)" in captured.out
    assert "real time" in captured.err  # the bar


def test_listed_frames_are_a_video_as_published(demo, fake, folder, tmp_path):
    files = [str(folder / f"{t:03d}.png") for t in (0, 1, 2, 3)]
    assert demo.main(["--video-input", *files, "--output", str(tmp_path / "out")]) == 0
    assert names(tmp_path / "out") == ["000.png", "001.png", "002.png", "003.png"]


def test_a_video_becomes_a_video_with_tracks_and_id_maps(demo, fake, tmp_path, capsys):
    pytest.importorskip("av")
    video = write_video(tmp_path / "in.mp4", pictures(8), rate=10, sound=True)
    args = ["--video-input", str(video), "--output", str(tmp_path / "out.mp4")]
    args += ["--save-tracks", str(tmp_path / "tracks.json"), "--save-masks", str(tmp_path / "ids")]
    assert demo.main(args) == 0
    assert len(read_video(tmp_path / "out.mp4")) == 8
    (track,) = json.loads((tmp_path / "tracks.json").read_text())
    assert (track["id"], track["category"], len(track["segmentations"])) == (7, "car", 8)
    assert names(tmp_path / "ids") == [f"{t:05d}.png" for t in range(8)]
    ids = np.array(Image.open(tmp_path / "ids" / "00005.png"))
    assert set(np.unique(ids[8:28, 5:25])) == {7}
    assert (ids > 0).sum() == 400
    assert "sound is not kept" in capsys.readouterr().out


def test_an_unreadable_frame_ends_it_and_the_frames_before_stay(demo, fake, folder, tmp_path, capsys):
    pytest.importorskip("av")
    (folder / "005.png").write_bytes(b"torn")
    args = ["--video-input", str(folder), "--output", str(tmp_path / "out.mp4")]
    assert demo.main([*args, "--save-tracks", str(tmp_path / "tracks.json")]) == 1
    captured = capsys.readouterr()
    assert "005.png" in captured.err
    assert "kept: 5 frames" in captured.err
    assert "5 of 8 frames drawn" in captured.out
    assert len(read_video(tmp_path / "out.mp4")) == 5
    assert len(json.loads((tmp_path / "tracks.json").read_text())[0]["segmentations"]) == 5


def test_ctrl_c_leaves_a_whole_video(demo, fake, folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    monkeypatch.setattr(fake, "interrupt_at", 4)
    args = ["--video-input", str(folder), "--output", str(tmp_path / "out.mp4")]
    assert demo.main([*args, "--save-tracks", str(tmp_path / "tracks.json")]) == 1
    assert "Stopped by Ctrl-C. What was done before is kept: 4 frames." in capsys.readouterr().err
    assert len(read_video(tmp_path / "out.mp4")) == 4
    assert len(json.loads((tmp_path / "tracks.json").read_text())[0]["segmentations"]) == 4


def test_nothing_done_leaves_nothing(demo, fake, folder, tmp_path, capsys):
    pytest.importorskip("av")
    (folder / "000.png").write_bytes(b"torn")
    assert demo.main(["--video-input", str(folder), "--output", str(tmp_path / "o" / "out.mp4")]) == 2
    assert "000.png" in capsys.readouterr().err
    assert names(tmp_path / "o") == []


def test_a_full_disk_is_told(demo, fake, folder, tmp_path, monkeypatch, capsys):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert demo.main(["--video-input", str(folder), "--output", str(tmp_path / "out")]) == 2
    assert "No space left on device" in capsys.readouterr().err


def test_frames_are_drawn_while_the_model_runs(demo, fake, folder, tmp_path, monkeypatch):
    """While the model takes its time for a frame, the one before is drawn."""
    drawn_before = []

    class Slow(FakeVideoPredictor):
        def _result(self, index, image):
            time.sleep(0.1)
            drawn_before.append(len(list((tmp_path / "out").iterdir())))
            return super()._result(index, image)

    monkeypatch.setattr(demo, "VideoPredictor", Slow)
    assert demo.main(["--video-input", str(folder), "--output", str(tmp_path / "out")]) == 0
    assert drawn_before[-1] >= 5


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("frames", "overwrite the input"),
        ("out.avi", "written as .mp4"),
        ("out.png", "written as .mp4"),
        ("a_file", "a_file"),
        ("a_file/out.mp4", "cannot be written"),
        ("folder.mp4", "a folder of that name"),
    ],
)
def test_outputs_that_would_do_harm(demo, fake, folder, tmp_path, capsys, output, message):
    pytest.importorskip("av")
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    assert demo.main(["--video-input", str(folder), "--output", str(tmp_path / output)]) == 2
    assert message in capsys.readouterr().err
    assert len(names(folder)) == 8


def test_a_video_is_not_written_over_itself(demo, fake, tmp_path, capsys):
    pytest.importorskip("av")
    video = write_video(tmp_path / "in.mp4", pictures(2))
    assert demo.main(["--video-input", str(video), "--output", str(video)]) == 2
    assert "overwrite the input" in capsys.readouterr().err
    assert len(read_video(video)) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--input", "a.png", "--video-input", "b.mp4"], "not allowed with"),
        ([], "is required"),
        (["--input", "a.png", "--save-tracks", "t.json"], "need --video-input"),
        (["--video-input", "frames", "--frame-rate", "0"], "above 0"),
    ],
)
def test_flags_that_do_not_go_together(demo, capsys, args, message):
    with pytest.raises(SystemExit):
        demo.parse_args([*args, "--output", "out"])
    assert message in capsys.readouterr().err


def test_a_model_of_whole_videos_and_a_camera(demo, fake, monkeypatch, capsys, tmp_path):
    pytest.importorskip("av")
    from mask2former.inference import video_source

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(video_source._CAMERAS, "linux", ("lavfi", "testsrc=size=64x48:rate=10:duration={}"))
    cfg = get_cfg()
    monkeypatch.setattr(demo, "config_of", lambda args: cfg)
    args = ["--video-input", "1", "--output", str(tmp_path / "out.mp4")]
    cfg.MODEL.META_ARCHITECTURE = "VideoMaskFormer"
    assert demo.main(args) == 2
    assert "TEST.WINDOW_SIZE" in capsys.readouterr().err
    cfg.TEST.WINDOW_SIZE = 3
    assert demo.main(args) == 0
    assert len(read_video(tmp_path / "out.mp4")) == 10


MEASURED = """
import resource, sys
from pathlib import Path
sys.path[:0] = [{root!r}, {root!r} + "/demo"]
import numpy as np
import demo
from mask2former.config import get_cfg
from mask2former.inference.video_sink import VideoFileSink
from tests.demo.test_demo_video import FakeVideoPredictor

folder = Path({folder!r})
sink = VideoFileSink(folder / "in.mp4", 25)
for t in range({length}):
    sink.write(np.roll(np.arange(320, dtype=np.uint8)[None, :, None].repeat(240, 0).repeat(3, 2), t, 1), t / 25, "")
sink.close()
demo.VideoPredictor, demo.config_of = FakeVideoPredictor, lambda args: get_cfg()
args = ["--video-input", str(folder / "in.mp4"), "--output", str(folder / "out.mp4")]
assert demo.main([*args, "--save-masks", str(folder / "ids")]) == 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(repo_dir, tmp_path):
    pytest.importorskip("av")

    def peak(length):
        code = MEASURED.format(root=str(repo_dir), folder=str(tmp_path), length=length)
        run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        return int(run.stdout.split()[-1])

    assert peak(1000) < 1.1 * peak(100)
