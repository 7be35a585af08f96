"""Results drawn over their image. Nothing here changes its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from mask2former.structures.instances import Instances
from mask2former.structures.labels import LabelSet
from mask2former.structures.masks import rle_areas, rle_decode
from mask2former.visualization.captions import Caption, region_captions, widest_place, write_captions
from mask2former.visualization.colors import blend, instance_color, lighten
from mask2former.visualization.drawable import (
    KINDS,
    Drawable,
    Objects,
    PanopticMap,
    objects_of,
    result_of,
    to_numpy,
)

# H W image size, K classes, N instances

CROWD = " (crowd)"  # follows the class name of a group that nobody outlined one by one


def draw_sem_seg(
    image: np.ndarray, sem: np.ndarray | torch.Tensor, labels: LabelSet, alpha: float = 0.55
) -> np.ndarray:
    """Classes in their colours, with borders and with names inside the regions.

    Args:
        image: uint8 [H,W,3] RGB.
        sem: class numbers [H,W]; pixels outside [0, K), such as ignored ones, show the image alone.
        labels: names and colours.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 [H,W,3] RGB.
    """
    sem = to_numpy(sem)
    drawn = overlay_sem_seg(image, sem, labels, alpha)
    return write_captions(drawn, region_captions(sem, dict(enumerate(labels.names))))


def overlay_sem_seg(image: np.ndarray, sem: np.ndarray, labels: LabelSet, alpha: float) -> np.ndarray:
    """The colours and borders of :func:`draw_sem_seg`, without names."""
    _check_size(image, sem.shape, "semantic map")
    known = (sem >= 0) & (sem < labels.num_classes)
    colors = labels.palette()[np.where(known, sem, 0)]
    drawn = blend(image, colors, alpha, known)
    border = region_borders(sem, _line_width(sem.shape)) & known
    drawn[border] = colors[border]
    return drawn


def draw_panoptic(
    image: np.ndarray,
    seg: np.ndarray | torch.Tensor,
    segments_info: Sequence[dict],
    labels: LabelSet,
    alpha: float = 0.55,
) -> np.ndarray:
    """Stuff in its class colour, each thing in a shade of it, crowds hatched, with borders and names.

    Args:
        image: uint8 [H,W,3] RGB.
        seg: segment ids [H,W]; 0 is no segment and shows the image alone.
        segments_info: for each segment ``id``, ``category_id`` (class number in [0, K)), ``isthing`` and, if known,
            ``iscrowd``.
        labels: names and colours.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 [H,W,3] RGB.
    """
    seg = to_numpy(seg)
    _check_size(image, seg.shape, "panoptic map")
    rows = rows_of(seg, segments_info)
    texts = {
        row: labels.names[segment["category_id"]] + (CROWD if segment.get("iscrowd") else "")
        for row, segment in enumerate(segments_info, start=1)
    }
    return write_captions(overlay_segments(image, rows, segments_info, labels, alpha), region_captions(rows, texts))


def overlay_segments(
    image: np.ndarray,
    rows: np.ndarray,
    segments_info: Sequence[dict],
    labels: LabelSet,
    alpha: float,
    shades: Sequence[tuple[int, int, int]] | None = None,
) -> np.ndarray:
    """The colours and borders of :func:`draw_panoptic`, without names.

    Args:
        rows: position + 1 of each pixel's segment in `segments_info`, 0 for none; integers [H,W].
        shades: RGB of each segment; None: by its class and place in `segments_info`.
    """
    things = np.array([False, *(bool(segment["isthing"]) for segment in segments_info)])
    crowds = np.array([False, *(bool(segment.get("iscrowd")) for segment in segments_info)])
    if shades is None:
        shades = _shades([segment["category_id"] for segment in segments_info], things[1:], labels)
    colors = np.array([(0, 0, 0), *shades], np.uint8)
    line = _line_width(rows.shape)
    filled = rows > 0
    if crowds.any():
        filled &= ~crowds[rows] | _stripes((slice(0, rows.shape[0]), slice(0, rows.shape[1])), line)
    drawn = blend(image, colors[rows], alpha, filled)
    border = region_borders(rows, line) & (rows > 0)
    lines = np.where(things[:, None], lighten(colors), colors)
    drawn[border] = lines[rows[border]]
    return drawn


def draw_instances(
    image: np.ndarray, instances: Instances, labels: LabelSet, threshold: float = 0.5, alpha: float = 0.5
) -> np.ndarray:
    """:func:`draw_objects` for predicted instances.

    Args:
        image: uint8 [H,W,3] RGB.
        instances: with `pred_masks` [N,H,W] (non-zero is inside), `pred_classes` [N] and `scores` [N].
        labels: names and colours.
        threshold: smallest score that is drawn.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 [H,W,3] RGB.
    """
    return draw_objects(image, objects_of(instances, threshold), labels, alpha)


def draw_objects(
    image: np.ndarray,
    objects: Objects,
    labels: LabelSet,
    alpha: float = 0.5,
    shades: Sequence[tuple[int, int, int]] | None = None,
) -> np.ndarray:
    """Masks in shades of their class colours, crowds hatched, with outlines, names and scores; small ones lie on top.

    Tracks have their ids beside the names, and the same colours in every frame of a video.

    Args:
        image: uint8 [H,W,3] RGB.
        objects: of the image's size.
        labels: names and colours.
        alpha: opacity of the colours, 0 to 1.
        shades: RGB of each object; None: by its class and place in `objects`.

    Returns:
        uint8 [H,W,3] RGB.
    """
    _check_size(image, objects.size, "instances")
    drawn, captions = image.copy(), []
    colors = _shades(objects.classes, np.ones(len(objects.classes), bool), labels) if shades is None else shades
    areas = rle_areas(objects.masks)
    line = _line_width(objects.size)
    for i in np.argsort(-areas.astype(np.int64), kind="stable"):
        mask = rle_decode(objects.masks[i])
        rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
        if not len(rows):
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        crowd = bool(objects.crowds[i]) if len(objects.crowds) else False
        filled = mask[box] & _stripes(box, line) if crowd else mask[box]
        _paint_mask(drawn[box], mask[box], filled, colors[i], alpha, line)
        y, x = widest_place(mask[box])
        text = labels.names[objects.classes[i]] + (CROWD if crowd else "")
        text += f" {objects.ids[i]}" if len(objects.ids) else ""
        text += f" {objects.scores[i]:.0%}" if len(objects.scores) else ""
        captions.append(Caption(text, columns[0] + x, rows[0] + y, float(areas[i])))
    return write_captions(drawn, captions)


def draw(image: np.ndarray, drawable: Drawable, labels: LabelSet) -> np.ndarray:
    """A result or ground truth of any kind over its image, uint8 [H,W,3] RGB."""
    if isinstance(drawable, PanopticMap):
        return draw_panoptic(image, drawable.ids, drawable.segments, labels)
    if isinstance(drawable, Objects):
        return draw_objects(image, drawable, labels)
    return draw_sem_seg(image, drawable.classes, labels)


def draw_results(image: np.ndarray, output: dict, labels: LabelSet, threshold: float = 0.5) -> dict[str, np.ndarray]:
    """A drawing of every result in a model's output for one image: "panoptic", "instances", "semantic".

    Args:
        image: uint8 [H,W,3] RGB, of the size of the results.
        output: any of ``sem_seg`` (scores [K,H,W]), ``panoptic_seg`` ((ids [H,W], segments_info)), ``instances``.
        labels: names and colours.
        threshold: smallest score of an instance that is drawn.
    """
    found = {kind: result_of(output, kind, threshold) for kind in KINDS}
    return {kind: draw(image, drawable, labels) for kind, drawable in found.items() if drawable is not None}


def rows_of(seg: np.ndarray, segments_info: Sequence[dict]) -> np.ndarray:
    """Position + 1 of each pixel's segment in `segments_info`, 0 where it is not among them; integers [H,W]."""
    if not len(segments_info):
        return np.zeros(seg.shape, dtype=np.int64)
    ids = np.array([segment["id"] for segment in segments_info])
    order = np.argsort(ids)
    ordered = ids[order]
    place = np.searchsorted(ordered, seg).clip(max=len(ids) - 1)
    return np.where(ordered[place] == seg, order[place] + 1, 0)


def region_borders(regions: np.ndarray, width: int = 1) -> np.ndarray:
    """Boolean [H,W]: pixels within `width` of one with another id, so each region has its own side of a border."""
    border = np.zeros(regions.shape, dtype=bool)
    for d in range(1, width + 1):
        vertical, horizontal = regions[d:] != regions[:-d], regions[:, d:] != regions[:, :-d]
        border[d:] |= vertical
        border[:-d] |= vertical
        border[:, d:] |= horizontal
        border[:, :-d] |= horizontal
    return border


def _paint_mask(
    area: np.ndarray, mask: np.ndarray, filled: np.ndarray, color: tuple[int, int, int], alpha: float, line: int
) -> None:
    """Paint the part `filled` of a mask [h,w], and its outline, into `area`, uint8 [h,w,3], in place."""
    area[:] = blend(area, np.array(color), alpha, filled)
    area[mask & ~ndimage.binary_erosion(mask, iterations=line)] = lighten(np.array(color))


def _stripes(box: tuple[slice, slice], line: int) -> np.ndarray:
    """Boolean [h,w]: slanting stripes over a box of the image, which hatch what stands for a crowd."""
    rows, columns = (np.arange(side.start, side.stop) for side in box)
    return (rows[:, None] + columns) % (8 * line) < 3 * line


def _shades(classes: Sequence[int], things: Sequence[bool], labels: LabelSet) -> list[tuple[int, int, int]]:
    """A colour for each region: stuff its class's own, the things of one class different shades of it."""
    palette, seen, colors = labels.palette(), {}, []
    for k, thing in zip(classes, things, strict=True):
        shade = seen.get(k, 0) if thing else 0
        seen[k] = shade + 1
        colors.append(instance_color(palette[k], shade))
    return colors


def _line_width(size: tuple[int, ...]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1]) / 700))


def _check_size(image: np.ndarray, size: tuple[int, ...], what: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 [H,W,3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] != tuple(size):
        raise ValueError(f"the image is {image.shape[1]}x{image.shape[0]}, the {what} {size[1]}x{size[0]} pixels")
