"""Frames of a video with what is followed through it: colours that stay, class names and track numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mask2former.structures import TrackedObject
from mask2former.structures.labels import LabelSet
from mask2former.structures.masks import rle_areas
from mask2former.utils.errors import UserError
from mask2former.visualization.captions import region_captions, write_captions
from mask2former.visualization.colors import instance_color
from mask2former.visualization.draw import draw_objects, overlay_segments
from mask2former.visualization.drawable import Objects

# H W frame size

_ALPHA = 0.5


class FramePainter:
    """Draws the frames of one video, in order.

    A track keeps the colour of its first frame: a shade of its class's colour, another one for each track of a class.
    """

    def __init__(self, labels: LabelSet):
        self.labels = labels
        self._palette = labels.palette()
        self._colors: dict[int, tuple[int, int, int]] = {}
        self._tracks_of_class: dict[int, int] = {}
        self._stuff_seen = False

    def draw(self, pixels: np.ndarray, objects: Sequence[TrackedObject]) -> np.ndarray:
        """A frame, uint8 [H,W,3] RGB, under its objects; a new array."""
        shades = [self._color(o) for o in objects]
        self._stuff_seen |= not all(o.isthing for o in objects)
        if self._stuff_seen:
            return self._draw_segments(pixels, objects, shades)
        masks, classes, ids = ([getattr(o, key) for o in objects] for key in ("rle", "category", "id"))
        return draw_objects(pixels, Objects(pixels.shape[:2], masks, classes, ids=ids), self.labels, _ALPHA, shades)

    def _draw_segments(self, pixels: np.ndarray, objects: Sequence[TrackedObject], shades: list) -> np.ndarray:
        """As :func:`mask2former.visualization.draw_panoptic`, with the tracks' colours and ids."""
        rows = np.zeros(pixels.shape[:2], np.int32)
        for row, o in enumerate(objects, start=1):
            rows[o.mask] = row
        segments = [{"category_id": o.category, "isthing": o.isthing} for o in objects]
        names = [self.labels.names[o.category] + (f" {o.id}" if o.isthing else "") for o in objects]
        drawn = overlay_segments(pixels, rows, segments, self.labels, _ALPHA, shades)
        return write_captions(drawn, region_captions(rows, dict(enumerate(names, start=1))))

    def _color(self, o: TrackedObject) -> tuple[int, int, int]:
        if not o.isthing:
            return instance_color(self._palette[o.category], 0)
        if o.id not in self._colors:
            shade = self._tracks_of_class.get(o.category, 0)
            self._tracks_of_class[o.category] = shade + 1
            self._colors[o.id] = instance_color(self._palette[o.category], shade)
        return self._colors[o.id]


def id_map(objects: Sequence[TrackedObject], size: tuple[int, int]) -> np.ndarray:
    """uint16 [H,W]: the track of each pixel, 0 where there is none; of objects that overlap the smaller one shows.

    Raises:
        UserError: an id above 65535.
    """
    ids = np.zeros(size, np.uint16)
    for i in np.argsort(-rle_areas([o.rle for o in objects]), kind="stable"):
        if objects[i].id > np.iinfo(ids.dtype).max:
            raise UserError(
                f"track {objects[i].id} does not fit into an id map of 16 bits, which ends at 65535: raise "
                "--confidence-threshold, or leave --save-masks out."
            )
        ids[objects[i].mask] = objects[i].id
    return ids
