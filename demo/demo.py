#!/usr/bin/env python
"""Draw a model's results on images or on a video.

    python demo/demo.py --config-file output/config.yaml --input photos/*.jpg --output drawn \
        --opts MODEL.WEIGHTS output/model_final.pth
    python demo/demo.py --video-input street.mp4 --output drawn.mp4 --opts MODEL.WEIGHTS output/model_final.pth

A checkpoint of this project carries its config, so `--config-file` may be left out. Each image becomes `<name>.png`
in the output folder, or `<name>_semantic.png`, `<name>_panoptic.png` and `<name>_instances.png` where the model gives
several kinds of result. A video becomes an mp4, or a folder of frames. Exit status: 0 all drawn, 1 some images or
frames could not be read, 2 nothing was done.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from _video import run_video
from PIL import Image
from tqdm import tqdm

from mask2former.config import CfgNode, load_cfg
from mask2former.data.reading import read_image
from mask2former.inference import Predictor, VideoPredictor, checkpoint_config
from mask2former.inference.video_source import IMAGE_SUFFIXES
from mask2former.utils.errors import UserError
from mask2former.utils.logger import setup_logger
from mask2former.utils.program import exit_status
from mask2former.visualization import draw_results


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    args = parse_args(argv)
    setup_logger()
    return exit_status(run, args)


def run(args: argparse.Namespace) -> int:
    """Draw what the command line asks for; returns 1 if some images or frames could not be read."""
    if args.video_input:
        return run_video(args, lambda: video_predictor(args))
    images = find_images(args.input)
    targets = plan_outputs(images, Path(args.output))
    predictor = Predictor(config_of(args))
    unreadable = draw_all(predictor, images, targets, args.confidence_threshold)
    print(f"{len(images) - unreadable} of {len(images)} images drawn to {args.output}.")
    return 1 if unreadable else 0


def video_predictor(args: argparse.Namespace) -> VideoPredictor:
    """The predictor of `--video-input`, which keeps masks for `--save-tracks` alone."""
    return VideoPredictor(
        config_of(args), min_score=args.confidence_threshold, keep_tracks=args.save_tracks is not None
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw a model's results on images or on a video.")
    parser.add_argument(
        "--config-file", help="recipe (YAML); without it the config inside the checkpoint in MODEL.WEIGHTS is used"
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--input", nargs="+", help="image files, patterns such as 'photos/**/*.jpg', or folders")
    given.add_argument(
        "--video-input", nargs="+", help="a video file, the number of a camera, or frames: a folder, files or a pattern"
    )
    parser.add_argument(
        "--output", required=True, help="folder for the drawings; for one image a file name, for a video an .mp4, too"
    )
    parser.add_argument(
        "--confidence-threshold", type=_share, default=0.5, help="smallest score of a drawn instance (default: 0.5)"
    )
    video = parser.add_argument_group("with --video-input")
    video.add_argument("--save-tracks", metavar="FILE", help="JSON file for the tracks, as YouTube-VIS results")
    video.add_argument("--save-masks", metavar="DIR", help="folder for a PNG per frame: the track of each pixel")
    video.add_argument(
        "--frame-rate", type=_rate, default=24.0, help="frames per second of frames that are image files (default: 24)"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs that change the config; comes last"
    )
    args = parser.parse_args(argv)
    if args.input and (args.save_tracks or args.save_masks):
        parser.error("--save-tracks and --save-masks need --video-input")
    return args


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, up to 1000")
    return value


def config_of(args: argparse.Namespace) -> CfgNode:
    """The config of `--config-file` or of the checkpoint, with `--opts` applied."""
    if args.config_file:
        cfg = load_cfg(args.config_file, args.opts)
        if not cfg.MODEL.WEIGHTS:
            raise UserError(
                f"{args.config_file} names no weights, so there is nothing to predict with. "
                "Add --opts MODEL.WEIGHTS PATH at the end."
            )
        return cfg
    weights = [value for key, value in zip(args.opts[::2], args.opts[1::2]) if key == "MODEL.WEIGHTS"]
    if not weights:
        raise UserError(
            "Neither a recipe nor weights are given. Add --config-file FILE, --opts MODEL.WEIGHTS PATH, or both."
        )
    return checkpoint_config(weights[-1], args.opts)


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The image files that files, patterns and folders stand for, each once, in the order given; folders sorted.

    Raises:
        UserError: an input that stands for nothing.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            problem = f"the folder holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})"
        elif path.is_file():
            files, problem = [path], ""
        else:
            files = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
            problem = "no such file or folder, and no file fits it as a pattern"
        if not files:
            raise UserError(f"--input {text}: {problem}. Correct --input.")
        found.update(dict.fromkeys(files))
    return list(found)


def plan_outputs(images: Sequence[Path], output: Path) -> list[Path]:
    """The file each drawing goes to, one per image; folders are made when drawings are saved.

    Images of one name from several folders are told apart by a number.

    Raises:
        UserError: a single file is asked for but several images are given, or an input would be overwritten.
    """
    one_file = output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir()
    if one_file and len(images) > 1:
        raise UserError(f"--output {output} names one image, but --input stands for {len(images)}. Give a folder.")
    if not one_file and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file other than an image. Give a folder, or the name of an image.")
    targets = [output] if one_file else [output / f"{name}.png" for name in unique_names(images)]
    if overwritten := {t.resolve() for t in targets} & {i.resolve() for i in images}:
        raise UserError(f"--output would overwrite the input {sorted(overwritten)[0]}. Choose another --output.")
    return targets


def unique_names(images: Sequence[Path]) -> list[str]:
    """The images' names without suffix; one that is taken already gets a number."""
    names: dict[str, None] = {}
    for image in images:
        name, number = image.stem, 2
        while name in names:
            name, number = f"{image.stem}_{number}", number + 1
        names[name] = None
    return list(names)


def draw_all(predictor: Predictor, images: Sequence[Path], targets: Sequence[Path], threshold: float) -> int:
    """Draw every image to its target; returns how many could not be read, each of which is said and skipped."""
    unreadable = 0
    for path, target in tqdm(list(zip(images, targets, strict=True)), desc="drawing", unit="image"):
        try:
            image = read_image(str(path), "RGB")
        except UserError as error:
            tqdm.write(f"skipped: {error}", file=sys.stderr)
            unreadable += 1
            continue
        drawings = draw_results(image, predictor(image), predictor.labels, threshold)
        if not drawings:
            raise UserError(
                "The config turns every result off. Set one of MODEL.MASK_FORMER.TEST.SEMANTIC_ON, PANOPTIC_ON and "
                "INSTANCE_ON to True (after --opts)."
            )
        save_drawings(drawings, target)
    return unreadable


def save_drawings(drawings: dict[str, np.ndarray], target: Path) -> None:
    """Write the one drawing to `target`, several beside it with their kind in the name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for kind, drawing in drawings.items():
        path = target if len(drawings) == 1 else target.with_name(f"{target.stem}_{kind}{target.suffix}")
        Image.fromarray(drawing).save(path)


if __name__ == "__main__":
    sys.exit(main())
