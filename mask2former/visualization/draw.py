"""Results drawn over their image. Nothing here changes its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from mask2former.structures.instances import Instances
from mask2former.structures.labels import LabelSet
from mask2former.visualization.captions import Caption, region_captions, widest_place, write_captions
from mask2former.visualization.colors import blend, instance_color, lighten

# H W image size, K classes, N instances


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
    sem = _to_numpy(sem)
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
    """Stuff in its class colour, each thing in a shade of it, with borders and names.

    Args:
        image: uint8 [H,W,3] RGB.
        seg: segment ids [H,W]; 0 is no segment and shows the image alone.
        segments_info: for each segment ``id``, ``category_id`` (class number in [0, K)) and ``isthing``.
        labels: names and colours.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 [H,W,3] RGB.
    """
    seg = _to_numpy(seg)
    _check_size(image, seg.shape, "panoptic map")
    palette = labels.palette()
    # row 0 of the tables belongs to pixels of no listed segment
    colors, things, texts = np.zeros((len(segments_info) + 1, 3), np.uint8), [False], {}
    seen: dict[int, int] = {}
    for row, segment in enumerate(segments_info, start=1):
        k = segment["category_id"]
        shade = seen.get(k, 0) if segment["isthing"] else 0
        seen[k] = shade + 1
        colors[row] = instance_color(palette[k], shade)
        things.append(bool(segment["isthing"]))
        texts[row] = labels.names[k]
    rows = _rows_of(seg, [segment["id"] for segment in segments_info])
    drawn = blend(image, colors[rows], alpha, rows > 0)
    border = region_borders(rows, _line_width(seg.shape)) & (rows > 0)
    lines = np.where(np.array(things)[:, None], lighten(colors), colors)
    drawn[border] = lines[rows[border]]
    return write_captions(drawn, region_captions(rows, texts))


def draw_instances(
    image: np.ndarray, instances: Instances, labels: LabelSet, threshold: float = 0.5, alpha: float = 0.5
) -> np.ndarray:
    """Masks in shades of their class colours, with outlines, names and scores; small ones lie on top.

    Args:
        image: uint8 [H,W,3] RGB.
        instances: with `pred_masks` [N,H,W] (non-zero is inside), `pred_classes` [N] and `scores` [N].
        labels: names and colours.
        threshold: smallest score that is drawn.
        alpha: opacity of the colours, 0 to 1.

    Returns:
        uint8 [H,W,3] RGB.
    """
    _check_size(image, instances.image_size, "instances")
    drawn = image.copy()
    if len(instances) == 0:
        return drawn
    kept = instances[instances.scores >= threshold]
    masks = _to_numpy(kept.pred_masks > 0)
    classes, scores = _to_numpy(kept.pred_classes).tolist(), _to_numpy(kept.scores).tolist()
    colors = _instance_colors(classes, labels)
    captions = []
    for i in np.argsort(-masks.sum((1, 2)), kind="stable"):
        rows, columns = masks[i].any(1).nonzero()[0], masks[i].any(0).nonzero()[0]
        if not len(rows):
            continue
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        _paint_mask(drawn[box], masks[i][box], colors[i], alpha, _line_width(instances.image_size))
        y, x = widest_place(masks[i][box])
        text = f"{labels.names[classes[i]]} {scores[i]:.0%}"
        captions.append(Caption(text, columns[0] + x, rows[0] + y, float(masks[i].sum())))
    return write_captions(drawn, captions)


def draw_results(image: np.ndarray, output: dict, labels: LabelSet, threshold: float = 0.5) -> dict[str, np.ndarray]:
    """A drawing of every result in a model's output for one image: "semantic", "panoptic", "instances".

    Args:
        image: uint8 [H,W,3] RGB, of the size of the results.
        output: any of ``sem_seg`` (scores [K,H,W]), ``panoptic_seg`` ((ids [H,W], segments_info)), ``instances``.
        labels: names and colours.
        threshold: smallest score of an instance that is drawn.
    """
    drawings = {}
    if output.get("sem_seg") is not None:
        drawings["semantic"] = draw_sem_seg(image, output["sem_seg"].max(0).indices, labels)
    if output.get("panoptic_seg") is not None:
        drawings["panoptic"] = draw_panoptic(image, *output["panoptic_seg"], labels)
    if output.get("instances") is not None:
        drawings["instances"] = draw_instances(image, output["instances"], labels, threshold)
    return drawings


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


def _paint_mask(area: np.ndarray, mask: np.ndarray, color: tuple[int, int, int], alpha: float, line: int) -> None:
    """Paint a mask [h,w] and its outline into `area`, uint8 [h,w,3], in place."""
    area[:] = blend(area, np.array(color), alpha, mask)
    area[mask & ~ndimage.binary_erosion(mask, iterations=line)] = lighten(np.array(color))


def _instance_colors(classes: Sequence[int], labels: LabelSet) -> list[tuple[int, int, int]]:
    palette, seen, colors = labels.palette(), {}, []
    for k in classes:
        colors.append(instance_color(palette[k], seen.get(k, 0)))
        seen[k] = seen.get(k, 0) + 1
    return colors


def _rows_of(seg: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """Position + 1 of each pixel's id in `ids`, 0 where it is not among them; integers [H,W]."""
    if not len(ids):
        return np.zeros(seg.shape, dtype=np.int64)
    order = np.argsort(ids)
    ordered = np.asarray(ids)[order]
    place = np.searchsorted(ordered, seg).clip(max=len(ids) - 1)
    return np.where(ordered[place] == seg, order[place] + 1, 0)


def _line_width(size: tuple[int, ...]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1]) / 700))


def _to_numpy(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy() if torch.is_tensor(values) else np.asarray(values)


def _check_size(image: np.ndarray, size: tuple[int, ...], what: str) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 [H,W,3], got {image.dtype} {list(image.shape)}")
    if image.shape[:2] != tuple(size):
        raise ValueError(f"the image is {image.shape[1]}x{image.shape[0]}, the {what} {size[1]}x{size[0]} pixels")
