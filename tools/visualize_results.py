#!/usr/bin/env python3
"""Draw saved results beside their ground truth.

    python train_net.py --config-file RECIPE --eval-only MODEL.WEIGHTS FILE TEST.SAVE_PREDICTIONS True
    python tools/visualize_results.py --input output/inference --dataset coco_2017_val_panoptic --output drawn

Each image goes to `<number>_<name of the image>.png`: ground truth on the left, the result on the right. Regions of the
ground truth that stand for a crowd are hatched. A data set of a recipe's DATASETS.CUSTOM needs that recipe in
`--config-file`. Exit status: 0, or 2 for a mistake in the command line, the results or the data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _common import load_registered, run_main
from _results import ResultFile, find_results
from PIL import Image
from tqdm import tqdm

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of, read_image
from mask2former.structures import LabelSet
from mask2former.visualization import draw, ground_truth
from mask2former.visualization.drawable import kind_of

_GAP = 8  # white pixels between the two pictures


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    path = find_results(Path(args.input))
    load_registered(args.config_file)
    records, labels = DatasetCatalog.get(args.dataset), labels_of(MetadataCatalog.get(args.dataset))
    file = ResultFile(path, labels, args.conf_threshold)
    known, folder = file.known(records), Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    for number, record in enumerate(tqdm(known, desc="drawing", unit="image")):
        picture = Image.fromarray(beside_truth(file, record, labels))
        picture.save(folder / f"{number:06d}_{Path(record['file_name']).stem}.png")
    print(f"{len(known)} of {len(records)} images drawn to {folder}, results of {path}")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw saved results beside their ground truth.")
    parser.add_argument("--input", required=True, metavar="PATH", help="result file, or the folder evaluation wrote to")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="data set that was evaluated")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument(
        "--conf-threshold", type=float, default=0.5, metavar="S", help="smallest score of a drawn instance (0.5)"
    )
    parser.add_argument("--config-file", metavar="FILE", help="recipe (YAML) that describes or imports the data set")
    return parser.parse_args(argv)


def beside_truth(file: ResultFile, record: dict, labels: LabelSet) -> np.ndarray:
    """Ground truth, of the kind of the result where there is one, and the result; uint8 [H,2W+gap,3]."""
    image = read_image(record["file_name"])
    height, width = image.shape[:2]
    result = file.result(record, (height, width))
    truth = ground_truth({"height": height, "width": width, **record}, kind_of(result))
    left = image if truth is None else draw(image, truth, labels)
    return np.concatenate([left, np.full((height, _GAP, 3), 255, np.uint8), draw(image, result, labels)], axis=1)


if __name__ == "__main__":
    sys.exit(run_main(main))
