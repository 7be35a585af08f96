#!/usr/bin/env python3
"""What a recipe's model is made of and what one image costs.

    python tools/analyze_model.py --config-file configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml \
        --tasks parameter flop activation structure --input-size 800 1216

Weights are random and the model runs on the CPU: none of the figures depends on them. Without `--input-size` operations
and activations are counted on the first images of DATASETS.TEST, as evaluation prepares them. Exit status: 0, or 2 for
a mistake in the command line, the recipe or the data.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import prod

import numpy as np
import torch
from _common import load_registered, run_main
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, flop_count_table, parameter_count_table
from torch import Tensor, nn

from mask2former.config import CfgNode
from mask2former.data import build_test_loader
from mask2former.modeling import build_model
from mask2former.utils.errors import UserError

# B batch, H heads, Q queries, S keys, D channels per head

GIGA, MEGA = 1e9, 1e6


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = load_registered(args.config_file, args.opts)
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg).eval()
    for task in dict.fromkeys(args.tasks):
        TASKS[task](cfg, model, args)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Parameters, operations, activations and structure of a model.")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="recipe (YAML)")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), required=True, help="what to tell, in this order")
    parser.add_argument(
        "--input-size", nargs=2, type=int, metavar=("H", "W"), help="count on an image of this size in pixels"
    )
    parser.add_argument(
        "--num-inputs", type=int, default=100, metavar="N", help="images of DATASETS.TEST to count on (default: 100)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys to change, after all flags")
    return parser.parse_args(argv)


def tell_parameters(cfg: CfgNode, model: nn.Module, args: argparse.Namespace) -> None:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(parameter_count_table(model, max_depth=4))
    print(f"{total / MEGA:.2f} M parameters, {trained / MEGA:.2f} M of them trained")


def tell_structure(cfg: CfgNode, model: nn.Module, args: argparse.Namespace) -> None:
    print(model)


def tell_flops(cfg: CfgNode, model: nn.Module, args: argparse.Namespace) -> None:
    """Multiply-adds from the image to class and mask logits; of one image as a table by module, of all as a mean.

    Published figures are higher (ADE20K R50 at 512x512: 71 G, here 63.5 G): they hold the masks of every decoder
    layer, 3.4 G that this model does without, and the 3.9 G that combine masks to class scores. Deformable attention
    counts one for each value it samples (0.4 G here), which they leave out.
    """
    totals, by_operator, skipped, first = [], Counter(), Counter(), None
    for image in inputs(cfg, args):
        analysis = _quiet(FlopCountAnalysis(Raw(model), image)).set_op_handle(ATTENTION, _attention_flops)
        totals.append(analysis.total() / GIGA)
        by_operator.update(analysis.by_operator())
        skipped.update(analysis.unsupported_ops())
        first = first or flop_count_table(analysis, max_depth=4, show_param_shapes=False)
    print(first)
    _tell_totals("G multiply-adds", totals, by_operator, GIGA)
    print(f"not counted, being small: {', '.join(sorted(skipped))}")


def tell_activations(cfg: CfgNode, model: nn.Module, args: argparse.Namespace) -> None:
    """Values that convolutions and matrix products put out (Radosavovic et al., CVPR 2020)."""
    totals, by_operator = [], Counter()
    for image in inputs(cfg, args):
        analysis = _quiet(ActivationCountAnalysis(Raw(model), image)).set_op_handle(ATTENTION, _attention_activations)
        totals.append(analysis.total() / MEGA)
        by_operator.update(analysis.by_operator())
    _tell_totals("M activations", totals, by_operator, MEGA)


TASKS: dict[str, Callable[[CfgNode, nn.Module, argparse.Namespace], None]] = {
    "parameter": tell_parameters,
    "flop": tell_flops,
    "activation": tell_activations,
    "structure": tell_structure,
}


class Raw(nn.Module):
    """A segmentation model as tracing wants one: an image [3,h,w] in, its raw predictions out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @torch.no_grad()  # as in evaluation; ops with a backward pass of their own cannot be looked into otherwise
    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.predict_raw([{"image": image}]).values())


def inputs(cfg: CfgNode, args: argparse.Namespace) -> Iterator[Tensor]:
    """Images [3,h,w] to count on: one of `--input-size`, else those of DATASETS.TEST.

    Raises:
        UserError: the size is no size, or there is no readable data set.
    """
    if args.input_size:
        if min(args.input_size) < 1:
            raise UserError(f"--input-size {args.input_size}: height and width must be 1 pixel or more.")
        yield torch.zeros(len(cfg.MODEL.PIXEL_MEAN), *args.input_size)
        return
    remedy = "Add --input-size H W to count on an image of that size."
    if not cfg.DATASETS.TEST:
        raise UserError(f"DATASETS.TEST is empty, so there is no image to count on. {remedy}")
    try:
        loader = build_test_loader(cfg, cfg.DATASETS.TEST[0])
    except UserError as error:
        raise UserError(f"{error} {remedy}") from error
    for batch in islice(loader, max(1, args.num_inputs)):
        yield batch[0]["image"]


ATTENTION = "aten::scaled_dot_product_attention"  # fvcore counts its two products only where they stand alone


def _attention_flops(inputs: Sequence, outputs: Sequence) -> int:
    """Multiply-adds of queries [B,H,Q,D] times keys, and of weights times values [B,H,S,D]."""
    query, _, value = (v.type().sizes() for v in inputs[:3])
    return prod(query[:-1]) * value[-2] * (query[-1] + value[-1])


def _attention_activations(inputs: Sequence, outputs: Sequence) -> int:
    """Values that the two products put out, [B,H,Q,S] and [B,H,Q,D]."""
    query, _, value = (v.type().sizes() for v in inputs[:3])
    return prod(query[:-1]) * (value[-2] + value[-1])


def _quiet(analysis):
    """fvcore's warnings off: operations without a count are told once, after all images."""
    return analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")


def _tell_totals(unit: str, totals: Sequence[float], by_operator: Counter, scale: float) -> None:
    spread = f" ± {np.std(totals):.2f}" if len(totals) > 1 else ""
    print(f"{np.mean(totals):.2f}{spread} {unit} per image (mean of {len(totals)}); by operation:")
    for name, count in by_operator.most_common():
        print(f"  {name:<28} {count / len(totals) / scale:.2f}")


if __name__ == "__main__":
    sys.exit(run_main(main))
