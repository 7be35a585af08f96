#!/usr/bin/env python3
"""Time parts of this project beside rivals that do the same work, in one run, and print a Markdown table.

    python tools/benchmark.py
    python tools/benchmark.py --only op forward step --repeats 9 --json speed.json
    python tools/benchmark.py --quick

Data is drawn into a temporary folder. Each contest checks that both sides give the same result, then calls them in
turns; figures are medians. The floor of a model is the FLOPs of its matrix products and convolutions over the speed
of a matrix product that is measured in the same run. Memory is the peak beyond what stands before a call and what
it returns, each side in a process of its own. Hugging Face's Mask2Former takes part where transformers is installed.
Exit status: 0, or 2 for a mistake in the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from _benchmarks import ap, forward, mapper, op, postprocess, pq, step
from _benchmarks.contest import Contest, Timing, hold
from _benchmarks.floor import gemm_speed
from _benchmarks.memory import peak_memory
from _benchmarks.setting import Setting
from _common import run_main

from mask2former.evaluation.report import format_table
from mask2former.utils.env import collect_env

# name -> function that prepares the data and gives the contests one by one, so that memory is free for the next
BENCHMARKS: dict[str, Callable[[Setting], Iterable[Contest]]] = {
    "op": op.contests,
    "forward": forward.contests,
    "step": step.contests,
    "postprocess": postprocess.contests,
    "ap": ap.contests,
    "pq": pq.contests,
    "mapper": mapper.contests,
}
_QUICK_GEMM = 256  # rows and columns


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # float32 everywhere: results can be compared, and the floor is one
    device = torch.device(args.device)
    machine = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": args.threads,
        "load average": os.getloadavg()[0],
        "GFLOP/s of a float32 matrix product": gemm_speed(device, _QUICK_GEMM if args.quick else None) / 1e9,
    }
    timings = []
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            timings += run(name, Setting(Path(folder), device, args.quick), 1 if args.quick else args.repeats)
    machine["load average at the end"] = os.getloadavg()[0]
    print(table(timings, machine["GFLOP/s of a float32 matrix product"]))
    words = {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in machine.items()}
    print("; ".join(f"{name}: {value}" for name, value in words.items()))
    if args.quick:
        print("Sizes are tiny, so that results are compared quickly: the times say nothing.")
    if args.json:
        results = [timing.to_dict() for timing in timings]
        content = {"environment": collect_env(), "machine": machine, "quick": args.quick, "results": results}
        Path(args.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0


def run(name: str, setting: Setting, repeats: int) -> list[Timing]:
    """Hold a benchmark's contests; memory is not measured where sizes are tiny."""
    timings = []
    for contest in BENCHMARKS[name](setting):
        timing = hold(contest, repeats)
        if contest.sides and not setting.quick:
            timing.memory = tuple(peak_memory(side, contest.calls, setting.device) for side in contest.sides)
        timings.append(timing)
    return timings


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time parts of this project beside rivals that do the same work.")
    parser.add_argument(
        "--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), help="benchmarks to run (default: all)"
    )
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed calls of each side (default: 5)")
    parser.add_argument(
        "--threads",
        type=int,
        default=_cores(),
        metavar="N",
        help="threads of torch (default: all cores, here %(default)s)",
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of models and ops (default: cpu)")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes and one repeat, to check results rather than the time"
    )
    parser.add_argument("--json", metavar="FILE", help="also write every time, and the machine, to this file")
    args = parser.parse_args(argv)
    for name in ("repeats", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} must be 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but torch sees no CUDA device; use cpu")
    return args


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def table(timings: Sequence[Timing], gflops: float) -> str:
    """The Markdown table: a row per contest; floors by the speed of a matrix product, in GFLOP/s."""
    rows = [["benchmark", "ours", "rival", "unit", "ratio", "floor, ms", "memory, MB", "rival's, MB", "the rival"]]
    for timing in timings:
        figures = [f"{figure:.1f}" for figure in timing.figures]
        floor = "" if timing.flops is None else f"{timing.flops / gflops / 1e6:.1f}"
        memory = ["" if size is None else f"{size / 1e6:.1f}" for size in timing.memory or (None, None)]
        ratio = f"{timing.ratio:.2f}"
        rows.append([timing.name, *figures, timing.figures_unit, ratio, floor, *memory, timing.rival_name])
    return format_table(rows)


if __name__ == "__main__":
    sys.exit(run_main(main))
