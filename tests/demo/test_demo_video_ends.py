"""demo.py --video-input: runs that end in the middle, and what is kept of them."""

import json
import os
import signal

import pytest
from PIL import Image

from mask2former.config import get_cfg
from mask2former.inference.video_sink import VideoFileSink, not_writable
from mask2former.visualization.video import FramePainter
from tests.demo.test_demo_video import FakeVideoPredictor, names
from tests.inference.videos import pictures, read_video

pytest.importorskip("av")


@pytest.fixture
def frames(tmp_path):
    made = tmp_path / "frames"
    made.mkdir()
    for t, picture in enumerate(pictures(8)):
        Image.fromarray(picture).save(made / f"{t:03d}.png")
    return made


@pytest.fixture
def run(demo, monkeypatch, frames, tmp_path):
    """A function of a predictor's class that runs the demo on eight frames, with tracks and id maps."""

    def start(predictor):
        monkeypatch.setattr(demo, "VideoPredictor", predictor)
        monkeypatch.setattr(demo, "config_of", lambda args: get_cfg())
        args = ["--video-input", str(frames), "--output", str(tmp_path / "o" / "out.mp4")]
        args += ["--save-tracks", str(tmp_path / "tracks.json"), "--save-masks", str(tmp_path / "ids")]
        return demo.main(args)

    return start


def check_kept(tmp_path, count):
    """Video, tracks and id maps of the first frames, and nothing half-written."""
    assert names(tmp_path / "o") == ["out.mp4"]
    assert len(read_video(tmp_path / "o" / "out.mp4")) == count
    (track,) = json.loads((tmp_path / "tracks.json").read_text())
    assert len(track["segmentations"]) == count
    assert names(tmp_path / "ids") == [f"{t:03d}.png" for t in range(count)]


class Breaking(FakeVideoPredictor):
    """Fails at the fifth frame with `error`."""

    error: BaseException = RuntimeError("CUDA out of memory")

    def _result(self, index, image):
        if index == 4:
            raise self.error
        return super()._result(index, image)


def test_any_error_of_the_model_leaves_the_frames_before(run, tmp_path, capsys):
    with pytest.raises(RuntimeError, match="out of memory"):
        run(Breaking)
    check_kept(tmp_path, 4)
    assert "4 of 8 frames drawn" in capsys.readouterr().out


def test_any_error_while_drawing_leaves_the_frames_before(run, tmp_path, monkeypatch):
    draw, drawn = FramePainter.draw, []

    def broken(self, pixels, objects):
        drawn.append(pixels)
        if len(drawn) == 4:
            raise MemoryError("no room for a picture")
        return draw(self, pixels, objects)

    monkeypatch.setattr(FramePainter, "draw", broken)
    with pytest.raises(MemoryError, match="no room"):
        run(FakeVideoPredictor)
    assert len(read_video(tmp_path / "o" / "out.mp4")) == 3
    assert len(json.loads((tmp_path / "tracks.json").read_text())[0]["segmentations"]) == 3


def test_a_second_ctrl_c_does_not_tear_what_is_being_written(run, demo, tmp_path, monkeypatch, capsys):
    close, heard_before = VideoFileSink.close, signal.getsignal(signal.SIGINT)

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        close(self)

    class Interrupted(Breaking):
        error = KeyboardInterrupt()

    monkeypatch.setattr(VideoFileSink, "close", interrupted)
    assert run(Interrupted) == 1
    check_kept(tmp_path, 4)
    assert "Stopped by Ctrl-C. What was done before is kept: 4 frames." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is heard_before


def test_tracks_are_kept_where_the_video_cannot_be_finished(run, tmp_path, monkeypatch, capsys):
    mux = VideoFileSink._mux

    def full(self, frame):
        if frame is None:  # what the encoder still holds
            raise not_writable(self.path, OSError(28, "No space left on device"))
        mux(self, frame)

    monkeypatch.setattr(VideoFileSink, "_mux", full)
    assert run(FakeVideoPredictor) == 2
    assert "out.mp4 cannot be written (No space left on device)" in capsys.readouterr().err
    assert names(tmp_path / "o") == []
    assert len(json.loads((tmp_path / "tracks.json").read_text())[0]["segmentations"]) == 8
