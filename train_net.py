#!/usr/bin/env python3
"""Train or evaluate a recipe: `train_net.py --config-file configs/quickstart/semantic.yaml --num-gpus 0`."""

from __future__ import annotations

import sys

from mask2former.engine.launch import launch
from mask2former.engine.run import do_evaluate, do_train
from mask2former.engine.setup import argument_parser, default_setup
from mask2former.utils.program import exit_status


def main(args) -> None:
    """What each process runs."""
    cfg = default_setup(args)
    if args.eval_only:
        do_evaluate(cfg, args.resume)
    else:
        do_train(cfg, args.resume)


if __name__ == "__main__":
    arguments = argument_parser().parse_args()
    status = exit_status(
        launch,
        main,
        num_gpus=arguments.num_gpus,
        num_machines=arguments.num_machines,
        machine_rank=arguments.machine_rank,
        dist_url=arguments.dist_url,
        args=(arguments,),
    )
    sys.exit(status)
