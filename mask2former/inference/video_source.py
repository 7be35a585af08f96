"""Where the frames of a video come from: a file, a camera, or image files in order."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mask2former.data.reading import read_image
from mask2former.inference.pyav import import_av
from mask2former.utils.errors import UserError

# H W frame size, T frames

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

# FFmpeg's name of the system's cameras, and the address of camera number n
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("vfwcap", "{}"),
}


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    pixels   uint8 [H,W,3] RGB
    seconds  when it is shown, from the start of the video
    name     of its file without suffix, or its number
    """

    pixels: np.ndarray
    seconds: float
    name: str


class ImageFrames:
    """Image files as the frames of a video.

    path    what the frames are told by in messages
    rate    frames per second
    length  number of frames
    note    what a user should know beside, "" if nothing
    live    False: it ends by itself
    """

    note, live = "", False

    def __init__(self, path: str, files: Sequence[Path], rate: float):
        self.path, self.files, self.rate, self.length = path, files, rate, len(files)
        unique = len({file.stem for file in files}) == len(files)
        self._names = [file.stem if unique else f"{t:05d}" for t, file in enumerate(files)]

    def __iter__(self) -> Iterator[Frame]:
        first = None
        for t, file in enumerate(self.files):
            pixels = read_image(file, "RGB")
            first = pixels.shape if first is None else first
            if pixels.shape != first:
                raise UserError(
                    f"Frame {file} has {_size(pixels.shape)} pixels, but {self.files[0]} has {_size(first)}. All "
                    "frames of a video have one size: resize it, or take it out."
                )
            yield Frame(pixels, t / self.rate, self._names[t])


class VideoFile:
    """A video file, or a camera, decoded frame by frame; turned as its metadata says. Fields as in `ImageFrames`.

    Args:
        path: the file, or the address of the camera.
        format: FFmpeg's name of the kind of device; None: a file.

    Raises:
        UserError: it cannot be opened, or holds no pictures that can be decoded.
    """

    def __init__(self, path: str, format: str | None = None):
        self.path, self.live = path, format is not None
        self._av = import_av(f"Reading {path}")
        self._container = self._open(format)
        stream = self._container.streams.video[0]
        stream.thread_type = "AUTO"
        self._stream = stream
        self.rate = float(stream.average_rate or stream.guessed_rate or 25)  # 25: nothing tells
        self.length = None if self.live else stream.frames or None  # not all kinds of file tell it
        self.note = "Its sound is not kept." if self._container.streams.audio else ""

    def __iter__(self) -> Iterator[Frame]:
        start = None
        try:
            for t, frame in enumerate(self._decoded()):
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                seconds = t / self.rate if frame.time is None else frame.time
                start = seconds if start is None else start
                yield Frame(np.ascontiguousarray(pixels), seconds - start, f"{t:05d}")
        finally:
            self._container.close()
        if start is None:
            raise UserError(f"{self.path} holds no frames. Is the file whole?")

    def _open(self, format: str | None):
        if format is None and not Path(self.path).is_file():
            raise UserError(f"No file {self.path}. Correct --video-input.")
        try:
            container = self._av.open(self.path, format=format)
        except (self._av.FFmpegError, OSError, ValueError) as error:
            remedy = "Is the camera connected, and free?" if format else "Is the file whole, and a video?"
            raise UserError(f"{self.path} cannot be opened as a video ({_reason(error)}). {remedy}") from error
        if not container.streams.video:
            kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
            container.close()
            raise UserError(f"{self.path} has no pictures, only {kinds}. Give a video.")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise UserError(
                f"{self.path} is coded in a way that this PyAV cannot decode. Convert it to H.264, for instance with "
                "ffmpeg -i FILE -c:v libx264 OUT.mp4."
            )
        return container

    def _decoded(self) -> Iterator:
        """The decoded frames; what comes after damage is not decoded."""
        packets = 0
        try:
            for packet in self._container.demux(self._stream):
                yield from packet.decode()
                packets += packet.size > 0
        except self._av.FFmpegError as error:
            yield from self._rest()
            raise UserError(
                f"{self.path} is damaged after about {packets} frames ({_reason(error)}). Repair it or copy it again."
            ) from error
        if self.length and packets < self.length:  # packets, since frames may be hidden by an edit list
            raise UserError(
                f"{self.path} ends early, after about {packets} of {self.length} frames. Copy the file again."
            )

    def _rest(self) -> list:
        """What the decoder holds back: frames wait there for those that are shown before them."""
        try:
            return self._stream.codec_context.decode(None)
        except self._av.FFmpegError:
            return []


VideoSource = ImageFrames | VideoFile


def open_source(inputs: Sequence[str], rate: float) -> VideoSource:
    """The video that a command line means.

    Args:
        inputs: a video file, the number of a camera, a folder of image files, or image files (or a pattern) in order.
            Files of a folder or a pattern are sorted by name, numbers in names by their value; gaps do not matter.
        rate: frames per second of image files.

    Raises:
        UserError: it does not exist, cannot be opened, or holds no frames.
    """
    text = inputs[0]
    path = Path(text).expanduser()
    if len(inputs) == 1 and text.isdecimal() and not path.exists():
        return _camera(int(text))
    if len(inputs) == 1 and path.is_dir():
        files = sorted(
            (p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=_by_number
        )
        if not files:
            raise UserError(
                f"--video-input {text}: the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}), so the video "
                "has no frames."
            )
        return ImageFrames(text, files, rate)
    if len(inputs) == 1 and not path.exists():
        files = sorted((Path(p) for p in glob.glob(str(path), recursive=True)), key=_by_number)
        if not files:
            raise UserError(f"--video-input {text}: no such file or folder, and no file fits it as a pattern.")
        return ImageFrames(text, files, rate) if len(files) > 1 else open_source([str(files[0])], rate)
    if len(inputs) == 1 and path.suffix.lower() not in IMAGE_SUFFIXES:
        return VideoFile(str(path))
    return ImageFrames(f"{len(inputs)} files", _listed(inputs), rate)


def _listed(inputs: Sequence[str]) -> list[Path]:
    files = [Path(text).expanduser() for text in inputs]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} frames of --video-input do not exist; the first is {missing[0]}."
        )
    if strange := [str(file) for file in files if file.suffix.lower() not in IMAGE_SUFFIXES]:
        raise UserError(f"--video-input takes one video, or image files; {strange[0]} among several is no image.")
    return files


def _camera(number: int) -> VideoFile:
    system = next((name for name in _CAMERAS if sys.platform.startswith(name)), "linux")
    format, address = _CAMERAS[system]
    return VideoFile(address.format(number), format)


def _by_number(path: Path) -> list:
    """Sorting key: frame_2 comes before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
