#!/usr/bin/env python3
"""Boundary AP of instance predictions (Cheng et al., Boundary IoU, CVPR 2021).

    python train_net.py --config-file RECIPE --eval-only MODEL.WEIGHTS FILE TEST.SAVE_PREDICTIONS True
    python tools/evaluate_coco_boundary_ap.py --gt-json-file datasets/coco/annotations/instances_val2017.json \\
        --dt-json-file OUTPUT_DIR/inference/coco_instances_results.json

All images of the ground truth are evaluated. Exit status: 0, or 2 for a mistake in the command line or the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from _common import run_main
from pycocotools import mask as coco_mask

from mask2former.data.datasets.coco_json import CocoFile, read_coco, read_json
from mask2former.evaluation import average_precision, print_results
from mask2former.evaluation.coco_ap import DILATION_RATIO, IOU_TYPES
from mask2former.evaluation.instance_truth import truth_of_file
from mask2former.evaluation.objects import id_order
from mask2former.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    coco = read_coco(args.gt_json_file)
    predictions = read_predictions(args.dt_json_file, args.iou_type)
    print_results({args.iou_type: evaluate(coco, predictions, args.iou_type, args.dilation_ratio)})
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gt-json-file", required=True, metavar="FILE", help="ground truth, a COCO instance JSON")
    parser.add_argument("--dt-json-file", required=True, metavar="FILE", help="coco_instances_results.json")
    parser.add_argument("--iou-type", choices=IOU_TYPES, default="boundary", help="what is compared (boundary)")
    parser.add_argument(
        "--dilation-ratio",
        type=float,
        default=DILATION_RATIO,
        metavar="R",
        help=f"width of a boundary as a share of the image's diagonal ({DILATION_RATIO})",
    )
    return parser.parse_args(argv)


def evaluate(coco: CocoFile, entries: Sequence[dict], iou_type: str, dilation_ratio: float) -> dict[str, float]:
    """See :func:`mask2former.evaluation.average_precision`.

    Args:
        coco: ground truth, with the size of each image.
        entries: as in COCO's result files. For masks and boundaries, areas are those of the masks.
        iou_type, dilation_ratio: what is compared.

    Raises:
        UserError: an image has no size, or an entry belongs to none of the images.
    """
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in coco.images}
    if without := [image_id for image_id, size in sizes.items() if None in size]:
        raise UserError(f"{coco.path}: image {without[0]!r} has no height or width. Add them in pixels.")
    sizes = {image_id: sizes[image_id] for image_id in sorted(sizes, key=id_order)}
    numbers = {image_id: number for number, image_id in enumerate(sizes, 1)}
    if foreign := [entry["image_id"] for entry in entries if entry["image_id"] not in numbers]:
        raise UserError(
            f"The predictions have the image_id {foreign[0]!r}, which is no image of {coco.path}. Give the two files "
            "of one data set."
        )
    images = [{"id": numbers[image_id], "height": h, "width": w} for image_id, (h, w) in sizes.items()]
    truth = truth_of_file(coco, [category["id"] for category in coco.categories], sizes)
    predictions = [
        {**_measured(entry, iou_type), "id": i, "image_id": numbers[entry["image_id"]]}
        for i, entry in enumerate(entries, 1)
    ]
    return average_precision(images, coco.categories, truth, predictions, iou_type, dilation_ratio)


def read_predictions(path: str, iou_type: str) -> list[dict]:
    entries = read_json(path)
    keys = {"image_id", "category_id", "score", "bbox" if iou_type == "bbox" else "segmentation"}
    if not isinstance(entries, list) or any(not isinstance(e, dict) or not keys <= e.keys() for e in entries):
        raise UserError(
            f"{path} is not a list of predictions with {sorted(keys)} each. Give the coco_instances_results.json that "
            "an evaluation with TEST.SAVE_PREDICTIONS True writes."
        )
    return entries


def _measured(entry: dict, iou_type: str) -> dict:
    """What counts of an entry, with its area."""
    counted = {"category_id": entry["category_id"], "score": entry["score"]}
    if iou_type == "bbox":
        return {**counted, "bbox": entry["bbox"], "area": entry["bbox"][2] * entry["bbox"][3]}
    mask = entry["segmentation"]
    return {**counted, "segmentation": mask, "area": float(coco_mask.area(mask))}


if __name__ == "__main__":
    sys.exit(run_main(main))
