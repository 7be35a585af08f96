#!/usr/bin/env python3
"""Look through data sets for everything that is wrong with them, before a training run finds it.

    python tools/check_dataset.py --config-file configs/quickstart/panoptic.yaml
    python tools/check_dataset.py --dataset ade20k_panoptic_train ade20k_panoptic_val --output checked

Every file is read whole. The console shows what was found by kind, with up to five examples each, and how often each
class occurs; `report.json` in the output folder holds all of it, and `samples_<data set>.png` shows augmented samples
as training sees them (without a recipe: with the default augmentation). Exit status: 0 nothing found but warnings, 1
errors found, 2 nothing was done.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from _common import load_registered, run_main
from _sample_page import sample_page

from mask2former.config import CfgNode, load_cfg
from mask2former.data import DatasetCatalog
from mask2former.data.inspection import Finding, Inspection, inspect_dataset, register_declared, shared_images
from mask2former.data.inspection.findings import KINDS
from mask2former.utils.errors import UserError

logger = logging.getLogger("mask2former.tools")

_EXAMPLES = 5  # of each kind of finding, on the console
_ROWS = 40  # classes in a table on the console
SPLITS = {"train": ("TRAIN",), "test": ("TEST",), "all": ("TRAIN", "TEST")}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    output = Path(args.output)
    cfg, refused = _registered(args)
    names = args.dataset or [name for key in SPLITS[args.split] for name in cfg.DATASETS[key]]
    if not names:
        raise UserError("There is nothing to check: add --dataset NAME, or a recipe with DATASETS.TRAIN or TEST.")
    queries = cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES
    known = [name for name in dict.fromkeys(names) if name in DatasetCatalog or not refused]
    seen = [inspect_dataset(name, queries, args.workers) for name in known]
    for inspection in seen:
        read = inspection.records and not any(finding.kind == "data set" for finding in inspection.findings)
        if read and inspection.name in cfg.DATASETS.TRAIN and inspection.is_unlabelled:
            unit = inspection.unit[:-1]
            text = f"nothing can be trained on: no {unit} has an object other than crowds, or a labelled pixel"
            inspection.findings.append(Finding("data set", inspection.name, text))
        if inspection.name in (args.dataset or cfg.DATASETS.TRAIN):
            _write_page(cfg, inspection, output)
    return _report(seen, [*refused, *shared_images(seen)], output)


def _registered(args: argparse.Namespace) -> tuple[CfgNode, list[Finding]]:
    """The recipe with its data sets registered, and what is wrong with those that it declares."""
    try:
        return load_registered(args.config_file, args.opts), []
    except UserError:
        if not args.config_file:
            raise
        cfg = load_cfg(args.config_file, args.opts)  # a mistake in the recipe itself is told here
        used = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST, *(args.dataset or ())}
        findings = register_declared(cfg.DATASETS.CUSTOM, used)
        if not findings:
            raise
        return cfg, findings


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Look through data sets for everything that is wrong with them.")
    parser.add_argument("--config-file", metavar="FILE", help="recipe (YAML); its DATASETS.TRAIN and TEST are checked")
    parser.add_argument("--dataset", nargs="+", metavar="NAME", help="data sets instead, published or of the recipe")
    parser.add_argument("--split", choices=list(SPLITS), default="all", help="which of the recipe's (default: all)")
    parser.add_argument(
        "--output",
        default="output/check_dataset",
        metavar="DIR",
        help="folder for report and pictures (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one per core)"
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys to change, after all flags")
    args = parser.parse_args(argv)
    if not args.config_file and not args.dataset:
        parser.error("give --config-file, --dataset, or both")
    return args


def _write_page(cfg: CfgNode, inspection: Inspection, output: Path) -> None:
    """A page of samples of a data set that its reader takes."""
    if any(finding.kind == "data set" for finding in inspection.findings):
        return
    try:
        page = sample_page(cfg, inspection, recipe=inspection.name in cfg.DATASETS.TRAIN)
    except UserError as error:
        logger.warning("no page of samples of %r: %s", inspection.name, error)
        return
    if page is not None:
        path = output / f"samples_{inspection.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        page.save(path)
        print(f"{inspection.name}: samples as training sees them in {path}")


# ---------------------------------------------------------------- what was found


def _report(seen: Sequence[Inspection], others: Sequence[Finding], output: Path) -> int:
    """Print the summary, write report.json; the exit status.

    Args:
        seen: the data sets.
        others: what was found in no single one of them.
        output: folder of the report.
    """
    for inspection in seen:
        print(f"\n{inspection.name}: {len(inspection.records)} {inspection.unit}")
        _print_findings(inspection.kinds())
        for kind, rows in inspection.frequencies().items():
            _print_classes(kind, rows, inspection.unit)
    _print_findings({finding.kind: [f for f in others if f.kind == finding.kind] for finding in others})
    findings = [finding for inspection in seen for finding in inspection.findings] + [*others]
    errors = sum(finding.is_error for finding in findings)
    content = {
        "errors": errors,
        "warnings": len(findings) - errors,
        "datasets": {
            i.name: {i.unit: len(i.records), "findings": _listed(i.findings), "classes": i.frequencies()} for i in seen
        },
        "others": _listed(others),
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "report.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"\nerrors: {errors}, warnings: {len(findings) - errors}; all of them in {output / 'report.json'}")
    return 1 if errors else 0


def _listed(findings: Sequence[Finding]) -> dict[str, list[dict]]:
    """Kind -> its findings, as in report.json."""
    listed: dict[str, list[dict]] = {}
    for finding in findings:
        entry = {"severity": _severity(finding), "place": finding.place, "text": finding.text}
        listed.setdefault(finding.kind, []).append(entry)
    return listed


def _severity(finding: Finding) -> str:
    return "error" if finding.is_error else "warning"


def _print_findings(kinds: dict[str, list[Finding]]) -> None:
    for kind, findings in kinds.items():
        print(f"  {_severity(findings[0]):7} {kind}: {len(findings)} ({KINDS[kind][1]})")
        for finding in findings[:_EXAMPLES]:
            print(f"          {finding.place}: {finding.text}")
        if len(findings) > _EXAMPLES:
            print(f"          and {len(findings) - _EXAMPLES} more")


def _print_classes(kind: str, rows: list[dict], unit: str) -> None:
    """The table of the classes that occur, the most frequent first; of a long one the two ends."""
    rows = sorted((row for row in rows if row["images"]), key=lambda row: -row["pixel_share"])
    shown = rows if len(rows) <= _ROWS else [*rows[: _ROWS // 2], None, *rows[-_ROWS // 2 :]]
    width = max((len(row["name"]) for row in shown if row), default=0)
    print(f"  {kind + ' classes':{width}}    pixels   {unit}  {'tracks' if unit == 'videos' else 'objects':>7}")
    for row in shown:
        if row is None:
            print(f"  ... {len(rows) - _ROWS} classes")
        else:
            print(f"  {row['name']:{width}}  {row['pixel_share']:8.3%} {row['images']:8} {row['objects']:8}")


if __name__ == "__main__":
    sys.exit(run_main(main))
