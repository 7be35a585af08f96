"""Words on a picture: where they go, so that none covers another, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

# H W image size

# longest side of the reduced map in which places for words are sought; exact enough for text, and fast
_SEARCH_SIDE = 256
_INK, _OUTLINE = (255, 255, 255), (20, 20, 20)


@dataclass(frozen=True)
class Caption:
    """Words to be centred on (x, y), in pixels; of two that collide the one with the larger `area` stays in place."""

    text: str
    x: float
    y: float
    area: float


@lru_cache(maxsize=32)
def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size)


def text_size(height: int, width: int) -> int:
    """Font size in pixels for an image: a share of its size, and never too small to read."""
    return max(11, round(math.sqrt(height * width) / 38))


def region_captions(
    regions: np.ndarray, texts: dict[int, str], min_share: float = 0.001, repeat_share: float = 0.03
) -> list[Caption]:
    """A caption in the widest place of each id's largest connected region, and of each other large one.

    Args:
        regions: integer ids [H,W].
        texts: words per id; other ids get none.
        min_share: smallest share of the image that gets a caption at all.
        repeat_share: smallest share that gets a caption although a larger region of its id has one.
    """
    step = max(1, math.ceil(max(regions.shape) / _SEARCH_SIDE))
    small = regions[step // 2 :: step, step // 2 :: step]
    captions = []
    for region_id in np.unique(small):
        if int(region_id) not in texts:
            continue
        parts, _ = ndimage.label(small == region_id)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        boxes = ndimage.find_objects(parts)
        for rank, part in enumerate(np.argsort(-sizes, kind="stable")[: len(boxes)]):
            if sizes[part] < (repeat_share if rank else min_share) * small.size:
                break
            y, x = widest_place(parts[boxes[part - 1]] == part)
            top, left = (side.start for side in boxes[part - 1])
            place = ((left + x + 0.5) * step, (top + y + 0.5) * step)
            captions.append(Caption(texts[int(region_id)], *place, float(sizes[part] * step**2)))
    return captions


def widest_place(mask: np.ndarray) -> tuple[int, int]:
    """(y, x) of the pixel of a boolean mask [H,W] that lies deepest inside it; a large mask is searched in steps."""
    step = max(1, math.ceil(max(mask.shape) / _SEARCH_SIDE))
    top, left = (min(step // 2, (side - 1) // 2) for side in mask.shape)
    # a margin of one pixel makes the border of the array an edge of the mask
    depth = ndimage.distance_transform_edt(np.pad(mask[top::step, left::step], 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return top + int(y) * step, left + int(x) * step


def write_captions(image: np.ndarray, captions: Iterable[Caption]) -> np.ndarray:
    """A copy of `image`, uint8 [H,W,3], with the captions written in outlined letters.

    Large regions come first. A caption that would cover one already there moves up or down by a line or two, and is
    left out where that does not help.
    """
    height, width = image.shape[:2]
    size = text_size(height, width)
    stroke = max(1, round(size / 9))
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    taken: list[tuple[float, float, float, float]] = []
    for caption in sorted(captions, key=lambda c: -c.area):
        left, top, right, bottom = pen.textbbox((0, 0), caption.text, font=font_of(size), stroke_width=stroke)
        w, h = right - left, bottom - top
        for shift in (0, -1, 1, -2, 2):
            x = min(max(caption.x - w / 2, 0), max(width - w, 0))
            y = min(max(caption.y - h / 2 + shift * h, 0), max(height - h, 0))
            box = (x, y, x + w, y + h)
            if not any(_overlap(box, other) for other in taken):
                taken.append(box)
                pen.text(
                    (x - left, y - top),
                    caption.text,
                    font=font_of(size),
                    fill=_INK,
                    stroke_width=stroke,
                    stroke_fill=_OUTLINE,
                )
                break
    return np.array(canvas)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
