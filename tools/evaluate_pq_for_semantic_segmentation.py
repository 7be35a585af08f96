"""Panoptic quality of a semantic model, every class of an image taken as one segment (MaskFormer's PQ^St).

    python train_net.py --config-file RECIPE --eval-only MODEL.WEIGHTS W TEST.SAVE_PREDICTIONS True
    python tools/evaluate_pq_for_semantic_segmentation.py --dataset-name ade20k_sem_seg_val \\
        --json-file OUTPUT_DIR/inference/sem_seg_predictions.json

The data set may be a semantic or a panoptic one. One of a recipe's own needs the recipe: --config-file.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from _common import load_registered, run_main
from tqdm import tqdm

from mask2former.data import DatasetCatalog
from mask2former.data.datasets.coco_json import read_json
from mask2former.evaluation import PanopticQuality, print_results
from mask2former.evaluation.labels import labels_for
from mask2former.evaluation.truth import semantic_truth
from mask2former.structures import LabelSet, rle_decode
from mask2former.utils.errors import UserError

# H, W image size; K classes


def evaluate(records: Iterable[dict], entries: Iterable[dict], labels: LabelSet) -> dict[str, float]:
    """PQ, SQ and RQ, see `PanopticQuality.results`.

    Args:
        records: of the data set, with ground truth.
        entries: of the predictions file: `file_name`, `category_id` (the data set's own) and `segmentation` (RLE). An
            image is known by its file's name, since folders differ between machines.
        labels: of the data set.

    Raises:
        UserError: a record has no prediction, or one of another size or with other classes.
    """
    predictions = defaultdict(list)
    for entry in entries:
        predictions[Path(entry["file_name"]).name].append(entry)
    total = PanopticQuality(labels.num_classes)
    for record in records:
        own = predictions.get(Path(record["file_name"]).name)
        if own is None:
            raise UserError(f"There is no prediction for {record['file_name']}. Is the file that of another data set?")
        truth, path = semantic_truth(record, labels.ignore_label)
        predicted = _predicted_classes(own, truth.shape, labels)
        truth = np.where(truth == labels.ignore_label, -1, truth)
        try:
            # segment id = class + 1, since 0 is void
            total.add(truth + 1, _segments(truth), predicted + 1, _segments(predicted))
        except ValueError as error:
            raise UserError(f"{path}: {error}. Correct the mask, or the class names of the data set.") from error
    return total.results(labels)


def _predicted_classes(entries: Sequence[dict], size: tuple[int, int], labels: LabelSet) -> np.ndarray:
    """int32 [H,W]; -1 where nothing is predicted."""
    own_ids = labels.dataset_ids or range(labels.num_classes)
    contiguous = {own: k for k, own in enumerate(own_ids)}
    classes = np.full(size, -1, dtype=np.int32)
    for entry in entries:
        if entry["category_id"] not in contiguous:
            raise UserError(
                f"The prediction for {entry['file_name']} has the category id {entry['category_id']}, which is none of "
                "the data set's. Give the data set that was evaluated as --dataset-name."
            )
        mask = rle_decode(entry["segmentation"])
        if mask.shape != size:
            raise UserError(
                f"The prediction for {entry['file_name']} has {mask.shape[1]}x{mask.shape[0]} pixels, its ground truth "
                f"{size[1]}x{size[0]} (width x height). Evaluate the model again on these images."
            )
        classes[mask] = contiguous[entry["category_id"]]
    return classes


def _segments(classes: np.ndarray) -> list[dict]:
    """A segment for each class that is present."""
    present = np.flatnonzero(np.bincount(classes.ravel() + 1)[1:])
    return [{"id": int(k) + 1, "category_id": int(k)} for k in present]


def _read_predictions(path: str) -> list[dict]:
    entries = read_json(path)
    keys = {"file_name", "category_id", "segmentation"}
    if not isinstance(entries, list) or any(not isinstance(e, dict) or not keys <= e.keys() for e in entries):
        raise UserError(
            f"{path} is not a list of semantic predictions with {sorted(keys)} each. Give the "
            "sem_seg_predictions.json that an evaluation with TEST.SAVE_PREDICTIONS True writes."
        )
    return entries


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset-name", default="ade20k_sem_seg_val", help="data set the predictions are of")
    parser.add_argument("--json-file", required=True, help="sem_seg_predictions.json of an evaluation")
    parser.add_argument("--config-file", help="recipe that declares the data set under DATASETS.CUSTOM or IMPORTS")
    args = parser.parse_args(argv)
    load_registered(args.config_file)
    records = DatasetCatalog.get(args.dataset_name)
    results = evaluate(tqdm(records, unit="image"), _read_predictions(args.json_file), labels_for(args.dataset_name))
    print_results({"pq_of_semantic": results})
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))
