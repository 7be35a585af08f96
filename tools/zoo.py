#!/usr/bin/env python3
"""Published checkpoints: which there are, what is known of one, and its file.

    python tools/zoo.py list coco panoptic
    python tools/zoo.py show coco/panoptic/R50
    python tools/zoo.py download coco/panoptic/R50
    python tools/zoo.py page > MODEL_ZOO.md

`MODEL.WEIGHTS zoo://coco/panoptic/R50` downloads the same file to the same place. Exit status: 0, or 2 when there is no
such model or its file cannot be had.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from _common import run_main
from _zoo_page import write_page

from mask2former.checkpoint.zoo import ZooModel, find_model, zoo, zoo_path
from mask2former.utils.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    ACTIONS[args.action](args)
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Published checkpoints under short names.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="list|show|download|page")
    listing = actions.add_parser("list", help="one line for each model")
    listing.add_argument("filter", nargs="*", help="words that must all be in the name, kind or backbone of a model")
    for action, what in (("show", "all that is known of a model"), ("download", "fetch and check its file")):
        one = actions.add_parser(action, help=what)
        one.add_argument("name", metavar="NAME", help="as in the list, for example coco/panoptic/R50")
    actions.add_parser("page", help="MODEL_ZOO.md, to standard output")
    return parser.parse_args(argv)


def _list(args: argparse.Namespace) -> None:
    words = [word.lower() for word in args.filter]
    found = [model for model in zoo().values() if all(word in _text(model) for word in words)]
    if not found:
        raise UserError(f"No model of the zoo has all of {', '.join(args.filter)}. `zoo.py list` alone shows all.")
    width = max(len(model.name) for model in found)
    for model in found:
        print(f"{model.name:<{width}}  {_figures(model)}")


def _text(model: ZooModel) -> str:
    return f"{model.name} {model.table} {model.model} {model.backbone}".lower()


def _figures(model: ZooModel) -> str:
    return ", ".join(f"{name} {value}" for name, value in model.figures.items() if value is not None)


def _show(args: argparse.Namespace) -> None:
    model = find_model(args.name, key="NAME")
    on_disk = "" if model.cached.is_file() else " (not there yet)"
    lines = {
        "name": f"zoo://{model.name}",
        "table": model.table,
        "model": f"{model.model}, {model.backbone}, {model.schedule}",
        "published": _figures(model),
        "recipe": model.recipe or "not in configs/",
        "address": model.address,
        "hash": model.digits or "none in the file's name: not checked",
        "file": f"{model.cached}{on_disk}",
    }
    for name, text in lines.items():
        print(f"{name:<10} {text}")


def _download(args: argparse.Namespace) -> None:
    print(zoo_path(args.name, key="NAME"))


def _page(args: argparse.Namespace) -> None:
    print(write_page(), end="")


ACTIONS = {"list": _list, "show": _show, "download": _download, "page": _page}


if __name__ == "__main__":
    sys.exit(run_main(main))
