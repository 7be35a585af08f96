#!/usr/bin/env python3
"""Time parts of this project beside rivals that do the same work, in one run, and print a Markdown table.

    python tools/benchmark.py
    python tools/benchmark.py --only pq mapper --repeats 9 --json speed.json

Data is drawn into a temporary folder. Each contest checks that both sides give the same result, then calls them in
turns; figures are medians. torch runs on one thread. Exit status: 0, or 2 for a mistake in the command line.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from _benchmarks import ap, mapper, pq
from _benchmarks.contest import Contest, Timing, hold
from _common import run_main

from mask2former.evaluation.report import format_table
from mask2former.utils.env import collect_env

# name -> function of a temporary folder that prepares the data and returns the contests
BENCHMARKS: dict[str, Callable[[Path], list[Contest]]] = {
    "ap": ap.contests,
    "pq": pq.contests,
    "mapper": mapper.contests,
}


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(1)
    timings = []
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            timings += [hold(contest, args.repeats) for contest in BENCHMARKS[name](Path(folder))]
    print(table(timings))
    if args.json:
        content = {"environment": collect_env(), "results": [timing.to_dict() for timing in timings]}
        Path(args.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time parts of this project beside rivals that do the same work.")
    parser.add_argument(
        "--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), help="benchmarks to run (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed calls of each side (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="also write every time, and the machine, to this file")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error("--repeats must be 1 or more")
    return args


def table(timings: Sequence[Timing]) -> str:
    """The Markdown table: a row per contest."""
    rows = [["benchmark", "ours", "rival", "unit", "ratio", "the rival"]]
    for timing in timings:
        ours, rival = (f"{rate:.1f}" for rate in timing.rates)
        contest = timing.contest
        rows.append([contest.name, ours, rival, f"{contest.unit}/s", f"{timing.ratio:.2f}", contest.rival_name])
    return format_table(rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
