"""Panoptic quality: the evaluator's counting against `np.unique`, from memory and from PNG files."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image

from _benchmarks.contest import Contest, check_close
from _benchmarks.pictures import draw_segments, shake, write_segments
from _benchmarks.setting import Setting
from mask2former.evaluation.panoptic import PanopticEvaluator
from mask2former.evaluation.pq import PanopticQuality
from mask2former.structures import LabelSet

# H, W image size, K classes

SIZE, IMAGES = (480, 640), 50
LABELS = LabelSet(tuple(f"class {k}" for k in range(133)), thing_ids=tuple(range(80)))
_OFFSET = 1 << 24  # above every segment id
_RIVAL = "two `np.unique` per image"

# truth ids [H,W], its segments, predicted ids [H,W], its segments
_Pair = tuple[np.ndarray, list[dict], np.ndarray, list[dict]]


def contests(setting: Setting) -> list[Contest]:
    """Contests over the same pairs of maps; files are written below the setting's folder."""
    rng = np.random.default_rng(0)
    count = setting.pick(IMAGES, 4)
    pairs = [_pair(rng) for _ in range(count)]
    records = []
    for number, (truth, segments, _, _) in enumerate(pairs):
        path = setting.folder / f"truth_{number:03d}.png"
        write_segments(truth, path)
        names = {"file_name": f"{number:03d}.jpg", "image_id": number, "pan_seg_file_name": str(path)}
        records.append({**names, "segments_info": segments})
    outputs = [{"panoptic_seg": (torch.from_numpy(predicted), segments)} for _, _, predicted, segments in pairs]
    evaluator = PanopticEvaluator(LABELS)

    def in_memory() -> float:
        quality = PanopticQuality(LABELS.num_classes)
        for pair in pairs:
            quality.add(*pair)
        return quality.results(LABELS)["PQ"]

    def from_files() -> float:
        evaluator.reset()
        for record, output in zip(records, outputs, strict=True):
            evaluator.process([record], [output])
        return evaluator.evaluate()["panoptic_seg"]["PQ"]

    def rival_from_files() -> float:
        return plain_pq((_read(r["pan_seg_file_name"]), *pair[1:]) for r, pair in zip(records, pairs, strict=True))

    return [
        Contest("PQ, maps in memory", count, "images", in_memory, lambda: plain_pq(pairs), _RIVAL, _same),
        Contest("PQ, truth from PNG", count, "images", from_files, rival_from_files, f"Pillow, {_RIVAL}", _same),
    ]


def _same(ours: float, rival: float) -> None:
    check_close("PQ", ours, rival, 1e-6)


def _pair(rng: np.random.Generator) -> _Pair:
    """A truth with random ids of 24 bits, as COCO's, one of them a crowd, and a prediction numbered from 1."""
    numbers = draw_segments(rng, SIZE, things=8, stuff=4)
    classes = rng.integers(0, LABELS.num_classes, numbers.max() + 2)
    ids = np.concatenate([[0], rng.choice(_OFFSET - 1, numbers.max(), replace=False) + 1])
    there = np.unique(numbers[numbers > 0])
    truth = [{"id": int(ids[n]), "category_id": int(classes[n]), "iscrowd": int(n == there[-1])} for n in there]
    predicted = shake(rng, numbers)
    found = np.unique(predicted[predicted > 0])
    segments = [{"id": int(n), "category_id": int(classes[n])} for n in found]
    return ids[numbers].astype(np.int32), truth, predicted.astype(np.int32), segments


def plain_pq(pairs: Iterable[_Pair]) -> float:
    """PQ in percent of pairs, counted by sorting each image's pixels twice: its predicted ids, and its pairs of ids."""
    iou, tp, fp, fn = (np.zeros(LABELS.num_classes) for _ in range(4))
    for truth_ids, truth_segments, predicted_ids, predicted_segments in pairs:
        truth = {s["id"]: s for s in truth_segments}
        predicted = {s["id"]: s["category_id"] for s in predicted_segments}
        predicted_area = dict(zip(*(part.tolist() for part in np.unique(predicted_ids, return_counts=True))))
        joined = truth_ids.astype(np.int64) * _OFFSET + predicted_ids
        common = dict(zip(*(part.tolist() for part in np.unique(joined, return_counts=True))))
        truth_area: dict[int, int] = {}
        for pair, pixels in common.items():
            truth_area[pair // _OFFSET] = truth_area.get(pair // _OFFSET, 0) + pixels
        matched = set()
        for pair, pixels in common.items():
            t, p = divmod(pair, _OFFSET)
            if t not in truth or p not in predicted or truth[t]["iscrowd"] or truth[t]["category_id"] != predicted[p]:
                continue
            share = pixels / (truth_area[t] + predicted_area[p] - pixels - common.get(p, 0))
            if share > 0.5:
                iou[predicted[p]] += share
                tp[predicted[p]] += 1
                matched |= {("truth", t), ("predicted", p)}
        for t, segment in truth.items():
            fn[segment["category_id"]] += ("truth", t) not in matched and not segment["iscrowd"]
        for p, category in predicted.items():
            crowds = [t for t, s in truth.items() if s["iscrowd"] and s["category_id"] == category]
            left_out = sum(common.get(t * _OFFSET + p, 0) for t in (0, *crowds))
            fp[category] += ("predicted", p) not in matched and left_out / predicted_area[p] <= 0.5
    segments = tp + fp / 2 + fn / 2
    return float(100 * (iou[segments > 0] / segments[segments > 0]).mean())


def _read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        colors = np.array(image.convert("RGB"), np.uint32)
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]
