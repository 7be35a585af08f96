#!/usr/bin/env python3
"""Weights of one program -> weights of another.

    python tools/convert_checkpoint.py resnet50-0676ba61.pth R-50.pkl
    python tools/convert_checkpoint.py models/mask2former-swin-tiny-coco-panoptic m2f.pth
    python tools/convert_checkpoint.py output/model_final.pth exported --to transformers
    python tools/convert_checkpoint.py --list

INPUT is anything that MODEL.WEIGHTS takes, and its format is told by what is in it; a model of Hugging Face's hub is
the folder that `huggingface-cli download OWNER/NAME --local-dir FOLDER` fills. OUTPUT is a folder with --to
transformers, else a file: .pth, .pt, .bin (PyTorch), .safetensors or .pkl (NumPy arrays, as detectron2's model zoo).
Without --to, the names are the published ones, which are ours. Exit status: 0, or 2 when nothing was written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from _common import load_registered, run_main

from mask2former.checkpoint.conversion import OFFICIAL, Source, find_target, read_source, save_weights
from mask2former.checkpoint.formats import FORMATS
from mask2former.checkpoint.formats.format import Format
from mask2former.checkpoint.formats.hf_config import ImageSettings
from mask2former.checkpoint.formats.hf_folder import to_transformers
from mask2former.checkpoint.formats.hf_mask2former import HF_MASK2FORMER
from mask2former.checkpoint.formats.hf_maskformer import HF_MASKFORMER
from mask2former.checkpoint.loading import check_architecture, compare
from mask2former.checkpoint.report import some_of
from mask2former.config import CfgNode
from mask2former.inference.predictor import checkpoint_config
from mask2former.modeling import build_model
from mask2former.utils.errors import UserError

TRANSFORMERS = "transformers"


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.list:
        _list()
        return 0
    output = Path(args.output)
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} exists already: add --overwrite to replace it, or choose another OUTPUT.")
    target = None if args.to == TRANSFORMERS else find_target(args.to, "--to")  # before anything is read
    source = read_source(args.input, "INPUT")
    print(source)
    cfg = load_registered(args.config_file) if args.config_file else None
    if cfg is not None:
        _check_recipe(source, cfg, args.config_file)
    if args.to == TRANSFORMERS:
        _write_folder(source, output, checkpoint_config(args.input) if cfg is None and "config" in source.kept else cfg)
    else:
        _write_file(source, output, target)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Weights of one program -> weights of another.")
    parser.add_argument("input", nargs="?", metavar="INPUT", help="file, folder, address or zoo:// name")
    parser.add_argument("output", nargs="?", metavar="OUTPUT", help="file, or with --to transformers a folder")
    parser.add_argument("--to", default=OFFICIAL, metavar="FORMAT", help="one of --list (default: official)")
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="recipe whose model these must be the weights of; with --to transformers also for images",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    parser.add_argument("--list", action="store_true", help="show the formats")
    args = parser.parse_args(argv)
    if not args.list and args.output is None:
        parser.error("INPUT and OUTPUT are needed")
    return args


def _list() -> None:
    rows = [(OFFICIAL, "in, out", "Mask2Former, MaskFormer and DiNAT as published, and this project's")]
    rows.append((TRANSFORMERS, "out", "a folder for Hugging Face's from_pretrained, Mask2Former or MaskFormer"))
    rows += [(one.name, "in, out" if one.from_ours else "in", one.title) for one in FORMATS]
    width = max(len(name) for name, _, _ in rows)
    for name, ways, title in rows:
        print(f"{name:<{width}}  {ways:<7}  {title}")


def _check_recipe(source: Source, cfg: CfgNode, config_file: str) -> None:
    """Print how the weights fit the recipe's model; raises UserError where they are another's."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "meta"  # names and shapes are enough
    with torch.device("meta"):
        model = build_model(cfg)
    report = compare(model, source.weights, source.path)
    check_architecture(model, source.weights, report, "--config-file")
    print(f"  {len(report.matched)} of {len(model.state_dict())} tensors of {config_file} have their value")
    for what, names in (("not in the file", report.missing), ("of another shape", [str(r) for r in report.reshaped])):
        if names:
            print(f"  {what} ({len(names)}): {some_of(names)}")


def _write_folder(source: Source, output: Path, cfg: CfgNode | None) -> None:
    """As Mask2Former where the weights have what MaskFormer lacks."""
    is_mask2former = "sem_seg_head.predictor.query_feat.weight" in source.weights
    name = HF_MASK2FORMER.name if is_mask2former else HF_MASKFORMER.name
    labels = source.kept.get("labels", {}).get("names")
    image = None if cfg is None else _image_settings(cfg)
    to_transformers(source.weights, output, name, class_names=labels, image=image)
    print(f"{output}: a folder for from_pretrained, {name}")
    if cfg is None:
        print("  sizes and normalisation of images are those of the published COCO recipes: --config-file gives others")


def _image_settings(cfg: CfgNode) -> ImageSettings:
    if cfg.INPUT.FORMAT != "RGB":
        raise UserError(
            f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, and transformers feeds RGB: the first convolution would see colours "
            "in another order. Write with --to official instead."
        )
    return ImageSettings(
        mean=cfg.MODEL.PIXEL_MEAN,
        std=cfg.MODEL.PIXEL_STD,
        short=cfg.INPUT.MIN_SIZE_TEST,
        long=cfg.INPUT.MAX_SIZE_TEST,
        divisor=cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
        ignore_label=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
    )


def _write_file(source: Source, output: Path, target: Format | None) -> None:
    if target is None:
        save_weights(source.weights, output, source.kept, "OUTPUT")
        written, title = source.weights, "names as published"
    else:
        written, title = target.from_ours(source.weights), target.title
        save_weights(written, output, None, "OUTPUT")
    lost = [] if target is None else sorted(source.weights.keys() - target.to_ours(written).keys())
    print(f"{output}: {title}, {len(written)} tensors")
    if lost:
        print(f"  no place there for ({len(lost)}): {some_of(lost)}")


if __name__ == "__main__":
    sys.exit(run_main(main))
