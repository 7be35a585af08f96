"""Colours of classes, of the instances of one class, and how they lie over an image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np

# H W image size

# steps of these irrational fractions never repeat and stay spread out, however many instances there are
_HUE_STEP, _LIGHT_STEP = 0.3820, 0.6180
_HUE_RANGE, _LIGHT_RANGE = 0.16, 0.5  # full widths, as parts of the hue circle and of black to white


def instance_color(color: Sequence[int], index: int) -> tuple[int, int, int]:
    """The shade of a class colour for its instance number `index`; number 0 has the class colour itself.

    Args:
        color: RGB, 0 to 255.
        index: from 0; each has a shade of its own, the same every time.
    """
    if index == 0:
        return tuple(int(c) for c in color)
    hue, light, saturation = colorsys.rgb_to_hls(*(c / 255 for c in color))
    hue += ((index * _HUE_STEP) % 1 - 0.5) * _HUE_RANGE
    light += ((index * _LIGHT_STEP) % 1 - 0.5) * _LIGHT_RANGE
    # near-black and near-white would hide the hue that tells the class
    light = min(max(light, 0.25), 0.8)
    return tuple(round(255 * c) for c in colorsys.hls_to_rgb(hue % 1, light, max(saturation, 0.35)))


def lighten(colors: np.ndarray) -> np.ndarray:
    """The tint of uint8 colours [...,3] that outlines things: it shows on the colour itself and beside others."""
    return (0.4 * colors + 0.6 * 255).astype(np.uint8)


def blend(image: np.ndarray, colors: np.ndarray, alpha: float, where: np.ndarray | None = None) -> np.ndarray:
    """`image` under a layer of `colors` of opacity `alpha`, a new uint8 array.

    Args:
        image: uint8 [H,W,3].
        colors: uint8 [H,W,3], or [3] for one colour.
        alpha: 0 leaves the image, 1 covers it.
        where: bool [H,W], the pixels that the layer has; None: all.
    """
    weight = round(256 * alpha)  # in 1/256, so that sixteen bits hold every product
    mixed = image.astype(np.uint16)
    mixed *= 256 - weight
    mixed += colors.astype(np.uint16) * np.uint16(weight)
    mixed >>= 8
    mixed = mixed.astype(np.uint8)
    if where is not None:
        mixed[~where] = image[~where]
    return mixed
