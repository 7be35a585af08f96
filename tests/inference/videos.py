"""Tiny videos for tests."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np


def pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth pictures whose red tells their number: 8 per frame."""
    column = np.linspace(0, 200, width)[None].repeat(height, 0)
    return [np.stack([np.full_like(column, 8 * t), column, column[:, ::-1]], 2).astype(np.uint8) for t in range(count)]


def write_video(path: Path, frames: list[np.ndarray], rate: int = 25, codec: str = "libx264", sound: bool = False):
    """Encode frames [H,W,3] of even size with their index in front, so that a cut file can be opened."""
    import av

    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=8000) if sound else None
        if audio:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 8000
            container.mux(audio.encode(silence))
            container.mux(audio.encode(None))
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read_video(path: Path) -> list[np.ndarray]:
    import av

    with av.open(io.BytesIO(path.read_bytes())) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
