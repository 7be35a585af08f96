#!/usr/bin/env python3
"""Draw a data set: the ground truth of its records, or training samples as the model sees them.

    python tools/visualize_data.py --dataset coco_2017_val_panoptic --output-dir drawn --num 20
    python tools/visualize_data.py --config-file RECIPE --source dataloader --output-dir drawn

Each picture goes to `<number>_<name of the image>.png`; of a video a few frames stand side by side, each track with its
id in a colour of its own. Regions that stand for a crowd are hatched. Exit status: 0, or
2 for a mistake in the command line, the recipe or the data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _common import load_registered, run_main, spread
from _pictures import name_of, record_picture, sample_picture
from PIL import Image
from tqdm import tqdm

from mask2former.config import CfgNode
from mask2former.data import DatasetCatalog, MetadataCatalog, build_train_loader, labels_of
from mask2former.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    chosen = ["DATASETS.TRAIN", [args.dataset]] if args.dataset else []
    cfg = load_registered(args.config_file, [*args.opts, *chosen])
    if not cfg.DATASETS.TRAIN:
        raise UserError("There is nothing to draw: add --dataset NAME, or a recipe with DATASETS.TRAIN.")
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for name, picture in tqdm(SOURCES[args.source](cfg, args.num), desc="drawing", unit="image"):
        Image.fromarray(picture).save(folder / f"{name}.png")
        drawn += 1
    print(f"{drawn} pictures in {folder}")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw the ground truth of a data set, or training samples.")
    parser.add_argument("--config-file", metavar="FILE", help="recipe (YAML); its DATASETS.TRAIN is drawn")
    parser.add_argument("--dataset", metavar="NAME", help="data set to draw, published or of the recipe")
    parser.add_argument(
        "--source",
        choices=list(SOURCES),
        default="annotation",
        help="annotation: records as they are; dataloader: samples as training sees them (default: annotation)",
    )
    parser.add_argument("--output-dir", required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument("--num", type=int, default=20, metavar="N", help="pictures to draw (default: 20)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys to change, after all flags")
    return parser.parse_args(argv)


def draw_records(cfg: CfgNode, num: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and picture of `num` records, spread evenly over each data set."""
    for dataset in cfg.DATASETS.TRAIN:
        records, labels = DatasetCatalog.get(dataset), labels_of(MetadataCatalog.get(dataset))
        for index in spread(len(records), num):
            yield f"{index:06d}_{name_of(records[index])}", record_picture(records[index], labels)


def draw_samples(cfg: CfgNode, num: int) -> Iterator[tuple[str, np.ndarray]]:
    """Name and picture of the first `num` samples of a training run."""
    labels = labels_of(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]))
    samples = (sample for batch in build_train_loader(cfg) for sample in batch)
    for index, sample in zip(range(num), samples):
        yield f"{index:06d}_{name_of(sample)}", sample_picture(sample, labels, cfg.INPUT.FORMAT)


SOURCES = {"annotation": draw_records, "dataloader": draw_samples}


if __name__ == "__main__":
    sys.exit(run_main(main))
