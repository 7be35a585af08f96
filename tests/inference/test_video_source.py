"""Frames of files, folders and cameras: order, times, turns, and every way in which a video can be broken."""

import builtins
import re
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from videos import pictures, write_video

from mask2former.inference import video_source
from mask2former.inference.video_source import ImageFrames, VideoFile, open_source
from mask2former.utils.errors import UserError


@pytest.fixture
def av():
    return pytest.importorskip("av")


@pytest.fixture
def video(av, tmp_path):
    return write_video(tmp_path / "clip.mp4", pictures(12), rate=10)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "frames"
    made.mkdir()
    for t, picture in enumerate(pictures(3)):
        Image.fromarray(picture).save(made / f"frame_{(2, 10, 11)[t]}.png")
    return made


def read_until_error(source):
    frames = []
    with pytest.raises(UserError) as error:
        frames.extend(source)  # extend keeps what came before the error
    return frames, str(error.value)


def test_a_video_file_gives_all_frames_with_their_times(video):
    source = open_source([str(video)], rate=24)
    assert (source.rate, source.length, source.note) == (10, 12, "")
    frames = list(source)
    assert [frame.name for frame in frames] == [f"{t:05d}" for t in range(12)]
    assert [frame.seconds for frame in frames] == pytest.approx([t / 10 for t in range(12)])
    for frame, picture in zip(frames, pictures(12), strict=True):
        assert frame.pixels.dtype == np.uint8
        assert abs(frame.pixels.astype(int) - picture).mean() < 4  # what H.264 loses


def test_frames_are_upright(video):
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, track header of version 0
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    video.write_bytes(data)
    first = next(iter(VideoFile(str(video))))
    assert first.pixels.shape == (64, 48, 3)
    assert abs(first.pixels.astype(int) - np.rot90(pictures(1)[0], -1)).mean() < 4


def test_sound_is_told(av, tmp_path):
    video = write_video(tmp_path / "loud.mp4", pictures(2), sound=True)
    assert "sound is not kept" in open_source([str(video)], 24).note


def test_a_folder_is_sorted_by_number_and_gaps_do_not_matter(folder):
    (folder / "notes.txt").write_text("no frame")
    source = open_source([str(folder)], rate=5)
    assert isinstance(source, ImageFrames)
    assert source.length == 3
    assert [(f.name, f.seconds) for f in source] == [("frame_2", 0), ("frame_10", 0.2), ("frame_11", 0.4)]


def test_patterns_and_lists_are_frames_too(folder):
    assert [f.name for f in open_source([str(folder / "*_1?.png")], 24)] == ["frame_10", "frame_11"]
    listed = [str(folder / "frame_11.png"), str(folder / "frame_2.png")]
    assert [f.name for f in open_source(listed, 24)] == ["frame_11", "frame_2"]


def test_frames_of_one_name_are_numbered(folder, tmp_path):
    other = tmp_path / "frame_2.png"
    other.write_bytes((folder / "frame_2.png").read_bytes())
    assert [f.name for f in open_source([str(folder / "frame_2.png"), str(other)], 24)] == ["00000", "00001"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["{t}/none.mp4"], "none.mp4: no such file or folder"),
        (["{t}/empty"], "holds no image .* no frames"),
        (["{t}/text.mp4"], "cannot be opened as a video .* Is the file whole"),
        (["{t}/frames/frame_2.png", "{t}/frames/frame_3.png", "{t}/frames/frame_4.png"], "2 of 3 .*frame_3.png"),
        (["{t}/frames/frame_2.png", "{t}/text.mp4"], "text.mp4 among several is no image"),
    ],
)
def test_inputs_that_stand_for_no_video(av, folder, tmp_path, inputs, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match=message):
        open_source([text.format(t=tmp_path) for text in inputs], 24)


def test_a_file_of_zero_bytes_and_one_of_sound_alone(av, tmp_path):
    (tmp_path / "nothing.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"nothing.mp4 cannot be opened"):
        open_source([str(tmp_path / "nothing.mp4")], 24)
    with av.open(str(tmp_path / "sound.m4a"), "w") as container:
        audio = container.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux([*audio.encode(silence), *audio.encode(None)])
    with pytest.raises(UserError, match="has no pictures, only audio"):
        open_source([str(tmp_path / "sound.m4a")], 24)


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_gives_the_frames_before_the_damage(av, tmp_path, damage):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "noise.mp4", list(noise))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data[:middle] if damage == "cut" else data)
    frames, message = read_until_error(open_source([str(path)], 24))
    assert 10 < len(frames) < 25
    assert re.search(r"noise.mp4 (is damaged after about \d+ frames|ends early, after about \d+ of 40 frames)", message)
    assert [f.name for f in frames] == [f"{t:05d}" for t in range(len(frames))]


def test_a_file_that_ends_between_two_frames(av, video):
    source = VideoFile(str(video))
    source.length = 20  # as the index of a cut file says
    frames, message = read_until_error(source)
    assert len(frames) == 12
    assert "ends early, after about 12 of 20 frames" in message


def test_an_unknown_coding_is_told(av, video):
    data = video.read_bytes()
    video.write_bytes(data.replace(b"avc1", b"xyz9"))
    with pytest.raises(UserError, match="cannot decode.*H.264"):
        open_source([str(video)], 24)


def test_frames_of_other_sizes_are_named(folder):
    Image.new("RGB", (32, 24)).save(folder / "frame_5.png")
    frames, message = read_until_error(open_source([str(folder)], 24))
    assert len(frames) == 1
    assert "frame_5.png has 32x24 pixels" in message
    assert "64x48" in message


def test_an_unreadable_frame_is_named(folder):
    (folder / "frame_10.png").write_bytes(b"torn")
    frames, message = read_until_error(open_source([str(folder)], 24))
    assert len(frames) == 1
    assert "frame_10.png" in message


def test_a_number_is_a_camera(av, monkeypatch):
    monkeypatch.setitem(video_source._CAMERAS, "linux", ("lavfi", "testsrc=size=64x48:rate=10:duration={}"))
    monkeypatch.setattr(sys, "platform", "linux")
    camera = open_source(["2"], 24)
    assert (camera.live, camera.length, camera.rate) == (True, None, 10)
    assert len(list(camera)) == 20


def test_a_camera_that_is_not_there(av, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match="/dev/video97 cannot be opened.*camera"):
        open_source(["97"], 24)


def test_without_pyav_the_command_is_told_and_folders_work(folder, tmp_path, monkeypatch):
    def refuse(name, *args, real=builtins.__import__, **kwargs):
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="pip install .av>=17"):
        open_source([str(tmp_path / "clip.mp4")], 24)
    assert len(list(open_source([str(folder)], 24))) == 3
