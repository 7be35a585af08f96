"""What a backbone promises about each of its maps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ShapeSpec:
    """Channels of a feature map and how many image pixels one of its cells spans (None: the image itself)."""

    channels: int
    stride: int | None = None
