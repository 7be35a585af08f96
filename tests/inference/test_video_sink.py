"""Written videos: what a browser asks for, sizes, times, and files that cannot be written."""

import resource

import numpy as np
import pytest
from PIL import Image
from videos import pictures, read_video

from mask2former.inference.video_sink import FrameFolderSink, VideoFileSink
from mask2former.utils.errors import UserError

av = pytest.importorskip("av")


def written(path, frames, seconds=None):
    sink = VideoFileSink(path, rate=10)
    for t, frame in enumerate(frames):
        sink.write(frame, t / 10 if seconds is None else seconds[t], "")
    sink.close()
    return path


def test_browsers_play_it(tmp_path):
    path = written(tmp_path / "new" / "out.mp4", pictures(12))
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # the index in front
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 10
        assert stream.frames == 12
        assert stream.codec_context.colorspace == 1  # BT.709, as the pixels are
    assert [p.name for p in path.parent.iterdir()] == ["out.mp4"]


def test_pictures_come_back(tmp_path):
    frames = pictures(12)
    for got, frame in zip(read_video(written(tmp_path / "out.mp4", frames)), frames, strict=True):
        assert abs(got.astype(int) - frame).mean() < 4  # what H.264 loses


@pytest.mark.parametrize(("height", "width"), [(47, 63), (48, 63), (1, 1)])
def test_odd_sides_grow_by_a_copy_of_the_last_pixels(tmp_path, height, width):
    frames = pictures(3, height, width)
    got = read_video(written(tmp_path / "out.mp4", frames))
    assert got[0].shape == (height + height % 2, width + width % 2, 3)
    assert abs(got[1][:height, :width].astype(int) - frames[1]).mean() < 6
    if width % 2:
        assert abs(got[1][:, -1].astype(int) - got[1][:, -2]).mean() < 12


def test_uneven_times_stay(tmp_path):
    seconds = [0, 0.1, 0.5, 0.5, 2]  # a camera may even repeat itself
    with av.open(str(written(tmp_path / "out.mp4", pictures(5), seconds))) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(seconds, abs=1e-3)


def test_nothing_written_leaves_no_file(tmp_path):
    VideoFileSink(tmp_path / "out.mp4", 25).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [20, 90])
def test_a_full_disk_leaves_no_file(tmp_path, length):
    """Of few frames the encoder holds all until the end; of many some are refused before."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    sink, former = VideoFileSink(tmp_path / "out.mp4", 10), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, former[1]))
    try:
        with pytest.raises(UserError, match=r"out.mp4 cannot be written \(File too large\)"):
            try:
                for t in range(length):
                    sink.write(np.roll(noise, t * 999), t / 10, "")
            finally:
                sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for make in (lambda p: VideoFileSink(p / "out.mp4", 25), FrameFolderSink):
        with pytest.raises(UserError, match=r"cannot be written .*Choose another place"):
            make(tmp_path / "file" / "in_a_file")


def test_folders_hold_pngs_by_name(tmp_path):
    sink = FrameFolderSink(tmp_path / "drawn")
    ids = np.array([[0, 7], [300, 65535]], np.uint16)
    sink.write(pictures(1)[0], 0, "a")
    sink.write(ids, 0, "b")
    sink.close()
    assert (np.array(Image.open(tmp_path / "drawn" / "a.png")) == pictures(1)[0]).all()
    assert (np.array(Image.open(tmp_path / "drawn" / "b.png")) == ids).all()
