"""COCO's AP of masks and boxes: the evaluator against faster-coco-eval alone, from run lengths and from masks."""

from __future__ import annotations

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as coco_mask

from _benchmarks.contest import Contest, check_close
from _benchmarks.setting import Setting
from mask2former.evaluation import InstanceEvaluator
from mask2former.structures import Instances, LabelSet

# H, W image size; N objects of an image

SIZE, IMAGES, DENSE_IMAGES = (480, 640), 200, 16
TRUE, PREDICTED = 20, 100  # objects per image
CLASSES = 80
LABELS = LabelSet(tuple(f"class {k}" for k in range(CLASSES)), thing_ids=tuple(range(CLASSES)))

_Metrics = dict[str, tuple[float, float]]  # "segm" and "bbox" -> AP, AP50 in percent


def contests(setting: Setting) -> list[Contest]:
    """Evaluation of the predictions of all images once they are encoded, and of a few from masks to metrics."""
    rng = np.random.default_rng(0)
    count, dense_count = setting.pick((IMAGES, DENSE_IMAGES), (4, 2))
    images = [_draw(rng, number) for number in range(1, count + 1)]
    whole, few = InstanceEvaluator(LABELS), InstanceEvaluator(LABELS)
    for record, predictions in images:
        whole.process([record], [_output(predictions)])
    dense = [(record, _output(predictions)) for record, predictions in images[:dense_count]]

    def from_masks() -> _Metrics:
        few.reset()
        for record, output in dense:
            few.process([record], [output])
        return _headlines(few)

    def rival_from_masks() -> _Metrics:
        found = []
        for (record, predictions), (_, output) in zip(images, dense):
            masks = [
                coco_mask.encode(np.asfortranarray(mask)) for mask in output["instances"].pred_masks.byte().numpy()
            ]
            found.append((record, [{**p, "segmentation": mask} for p, mask in zip(predictions, masks, strict=True)]))
        return plain_ap(found)

    work = f"x {PREDICTED} predictions"
    return [
        Contest(
            f"AP from run lengths, {count} images {work}",
            count,
            "images",
            lambda: _headlines(whole),
            lambda: plain_ap(images),
            "faster-coco-eval alone",
            _same,
        ),
        Contest(
            f"AP from masks, {dense_count} images {work}",
            dense_count,
            "images",
            from_masks,
            rival_from_masks,
            "pycocotools' encode, then faster-coco-eval",
            _same,
        ),
    ]


def plain_ap(images: list[tuple[dict, list[dict]]]) -> _Metrics:
    """AP and AP50 of (record, predictions as in COCO's result format) by faster-coco-eval's own ways."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": r["image_id"], "height": r["height"], "width": r["width"]} for r, _ in images],
        "categories": [{"id": k, "name": name} for k, name in enumerate(LABELS.names)],
        "annotations": [{**a, "image_id": r["image_id"]} for r, _ in images for a in r["annotations"]],
    }
    truth.createIndex()
    metrics = {}
    for task in ("segm", "bbox"):
        shape = "segmentation" if task == "segm" else "bbox"
        keys = ("image_id", "category_id", "score", shape)
        predictions = truth.loadRes([{key: p[key] for key in keys} for _, found in images for p in found])
        evaluation = COCOeval_faster(truth, predictions, task, print_function=lambda *_: None)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        metrics[task] = (100 * evaluation.stats[0], 100 * evaluation.stats[1])
    return metrics


def _headlines(evaluator: InstanceEvaluator) -> _Metrics:
    return {task: (found["AP"], found["AP50"]) for task, found in evaluator.evaluate().items()}


def _same(ours: _Metrics, rival: _Metrics) -> None:
    for task, figures in rival.items():
        for name, own, other in zip(("AP", "AP50"), ours[task], figures, strict=True):
            check_close(f"{task} {name}", own, other, 1e-6)


def _draw(rng: np.random.Generator, number: int) -> tuple[dict, list[dict]]:
    """A record with ellipses as objects, and predictions: objects, more or less shifted, most of the right class."""
    centers = rng.uniform((0, 0), SIZE[::-1], (TRUE, 2))
    radii = np.exp(rng.uniform(np.log(8), np.log(120), (TRUE, 2)))
    classes = rng.integers(0, CLASSES, TRUE)
    annotations = [
        {"id": number * 1000 + i, "category_id": int(k), "iscrowd": 0, **_ellipse(center, radius)}
        for i, (center, radius, k) in enumerate(zip(centers, radii, classes))
    ]
    chosen = rng.integers(0, TRUE, PREDICTED)
    shifted = centers[chosen] + radii[chosen] * rng.normal(0, 0.3, (PREDICTED, 2))
    guessed = np.where(rng.random(PREDICTED) < 0.7, classes[chosen], rng.integers(0, CLASSES, PREDICTED))
    predictions = [
        {"image_id": number, "category_id": int(k), "score": float(score), **_ellipse(center, radius)}
        for center, radius, k, score in zip(shifted, radii[chosen], guessed, rng.random(PREDICTED))
    ]
    names = {"file_name": f"{number}.jpg", "image_id": number, "height": SIZE[0], "width": SIZE[1]}
    return {**names, "annotations": annotations}, predictions


def _ellipse(center: np.ndarray, radius: np.ndarray) -> dict:
    """Run lengths, box and area of an ellipse, cut off at the image's edge; (x, y) in pixels."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    ring = (center + radius * np.stack([np.cos(angle), np.sin(angle)], 1)).clip(0, SIZE[::-1])
    rle = coco_mask.frPyObjects([ring.ravel().tolist()], *SIZE)[0]
    return {"segmentation": rle, "bbox": coco_mask.toBbox(rle).tolist(), "area": float(coco_mask.area(rle))}


def _output(predictions: list[dict]) -> dict:
    """The predictions as a model gives them: masks of all pixels."""
    masks = coco_mask.decode([p["segmentation"] for p in predictions]).transpose(2, 0, 1)
    return {
        "instances": Instances(
            SIZE,
            pred_masks=torch.from_numpy(np.ascontiguousarray(masks)).bool(),
            pred_classes=torch.tensor([p["category_id"] for p in predictions]),
            scores=torch.tensor([p["score"] for p in predictions], dtype=torch.float64),
        )
    }
