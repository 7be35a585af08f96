"""Where drawn frames go: a video file that browsers play, or a folder of pictures."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from mask2former.inference.pyav import import_av
from mask2former.utils.errors import UserError

# H W frame size

_TICKS = 90000  # per second, as is usual in video: it divides by all rates in use
_QUALITY = {"crf": "20", "preset": "veryfast"}  # looks like the original; x264's default is 23
_BT709 = 1  # the standard of colours that browsers take HD video for
VIDEO_SUFFIX = ".mp4"


class VideoFileSink:
    """Writes an mp4 of H.264 with 4:2:0 colours and its index in front, which browsers play while it loads.

    Each frame is shown at its own time, so uneven rates stay. Odd sides grow by one pixel, a copy of the last one,
    since 4:2:0 has one colour for 2x2 pixels. The file has another name until `close`.

    Args:
        path: ends in .mp4.
        rate: frames per second, for the encoder.

    Raises:
        UserError: PyAV is missing, or the file cannot be written.
    """

    def __init__(self, path: Path, rate: float):
        self._av = import_av(f"Writing {path}")
        self.path = path
        self._unfinished = path.with_name(f".{path.stem}.{os.getpid()}{VIDEO_SUFFIX}")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._stream = None
        self._last = -1
        make_folder(path.parent)
        try:
            self._container = self._av.open(str(self._unfinished), "w", options={"movflags": "+faststart"})
        except (self._av.FFmpegError, OSError) as error:
            raise not_writable(path, error) from error

    def write(self, picture: np.ndarray, seconds: float, name: str) -> None:
        """Append a frame, uint8 [H,W,3] RGB, that is shown `seconds` after the start; `name` has no meaning here."""
        height, width = picture.shape[:2]
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._stream is None:
            self._stream = self._start(*picture.shape[:2])
        frame = self._av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._last = frame.pts = max(round(seconds * _TICKS), self._last + 1)
        frame.time_base = Fraction(1, _TICKS)
        self._mux(frame)

    def close(self) -> None:
        """Finish the file; without a frame, or where it cannot be finished, there is none."""
        try:
            try:
                if self._stream is not None:
                    self._mux(None)
            finally:
                self._container.close()
            if self._stream is not None:
                os.replace(self._unfinished, self.path)
        except (self._av.FFmpegError, OSError) as error:
            raise not_writable(self.path, error) from error
        finally:
            self._unfinished.unlink(missing_ok=True)

    def _start(self, height: int, width: int):
        stream = self._container.add_stream("libx264", rate=self._rate, options=_QUALITY)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        return stream

    def _mux(self, frame) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (self._av.FFmpegError, OSError) as error:
            raise not_writable(self.path, error) from error


class FrameFolderSink:
    """Writes each frame as `<name>.png`.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, path: Path):
        self.path = path
        make_folder(path)

    def write(self, picture: np.ndarray, seconds: float, name: str) -> None:
        """Save a frame, uint8 [H,W,3] RGB or uint16 [H,W]; `seconds` has no meaning here."""
        save_png(picture, self.path / f"{name}.png")

    def close(self) -> None:
        """Nothing is left to do."""


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write a picture, uint8 [H,W,3] RGB or uint16 [H,W]; a UserError where that is not possible."""
    try:
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise not_writable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder, and say so now if nothing can be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(path, error) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{path} cannot be written to: permission denied. Choose another place.")


def not_writable(path: Path, error: Exception) -> UserError:
    """The error for a file that could not be written."""
    return UserError(f"{path} cannot be written ({getattr(error, 'strerror', None) or error}). Choose another place.")
