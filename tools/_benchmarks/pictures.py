"""Made-up pictures with segments, as much like photographs as timing needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# H, W image size


def draw_segments(rng: np.random.Generator, size: tuple[int, int], things: int, stuff: int) -> np.ndarray:
    """Segment numbers, int32 [H,W]: 0 for a few unlabelled patches, 1 ... for stuff and then things in front of it.

    Stuff lies in wavy bands, things are ellipses of a thirtieth to a third of the image's side.
    """
    height, width = size
    y, x = np.mgrid[:height, :width] + [3 * _noise(rng, size, 4) for _ in range(2)]  # ragged borders
    waves = sum(np.sin(x / rng.uniform(20, 90) + rng.uniform(0, 6)) * height / 60 for _ in range(3))
    numbers = 1 + ((y + waves).clip(0, height - 1) * stuff / height).astype(np.int32)
    for number in (0, 0, *range(stuff + 1, stuff + things + 1)):
        radius = rng.uniform(1 / 30, 1 / 3) * min(size) / 2
        stretch, turn = rng.uniform(0.5, 2), rng.uniform(0, np.pi)
        dy, dx = y - rng.uniform(0, height), x - rng.uniform(0, width)
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        numbers[(along / stretch) ** 2 + (across * stretch) ** 2 < radius**2] = number
    return numbers


def draw_image(rng: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """A picture of segments, uint8 [H,W,3]: a colour for each, shades across it, and grain."""
    colors = rng.uniform(40, 215, (numbers.max() + 1, 3))[numbers]
    shades = 64 * _noise(rng, numbers.shape, 16)[..., None]
    return (colors + shades + rng.normal(0, 6, colors.shape)).clip(0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, size: tuple[int, int], grain: int) -> np.ndarray:
    """Smooth noise of about -0.5 to 0.5 with patches of `grain` pixels, float32 [H,W]."""
    coarse = Image.fromarray(rng.random((size[0] // grain, size[1] // grain), dtype=np.float32) - 0.5)
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def shake(rng: np.random.Generator, numbers: np.ndarray) -> np.ndarray:
    """Segment numbers as a model might predict them: borders moved by a few pixels, some segments merged or split."""
    moved = np.roll(numbers, tuple(rng.integers(-4, 5, 2)), (0, 1)).copy()
    there = np.unique(moved)
    first, second = rng.choice(there, 2)
    moved[moved == first] = second
    half = moved == rng.choice(there)
    half[:, : half.shape[1] // 2] = False
    moved[half] = numbers.max() + 1
    return moved


def write_segments(ids: np.ndarray, path: Path) -> None:
    """Segment ids as a PNG of COCO's panoptic form: id = R + 256 G + 65536 B."""
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(path)
