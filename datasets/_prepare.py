"""What the preparation scripts share: command line, inputs that may be missing, files written whole, parallel work."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mask2former.utils.errors import UserError
from mask2former.utils.program import exit_status

_CHUNK = 16  # most jobs that a worker process is handed at once


def command_line(prepare: Callable[[Path, int], None], about: str) -> None:
    """The program around `prepare(root, workers)`; a UserError ends it with status 2 and no traceback."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument(
        "--root",
        default=os.environ.get("DETECTRON2_DATASETS", "datasets"),
        help="folder of all data sets (default: $DETECTRON2_DATASETS, else datasets)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    args = parser.parse_args()
    sys.exit(exit_status(prepare, Path(args.root).expanduser(), max(1, args.workers)))


def require(path: Path, expected: str, source: str) -> Path:
    """`path`, which must exist.

    Args:
        path: an input file or folder.
        expected: the layout that it is part of.
        source: where to get it.

    Raises:
        UserError: it does not exist.
    """
    if not path.exists():
        raise UserError(
            f"{path} does not exist. Expected {expected}. Download it from {source}, or say where the data sets lie "
            "with --root or $DETECTRON2_DATASETS; datasets/README.md shows every layout."
        )
    return path


def read_json(path: Path) -> dict:
    """The content of a JSON file; a broken one is a UserError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}). Download it again.") from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A draft beside `path` that takes its name when the block ends, so that a file which exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save_image(array: np.ndarray, path: Path, **options: object) -> None:
    """Write pixels, uint8 or uint16 [H,W] or uint8 [H,W,3], in the format of the suffix; `options` are Pillow's."""
    with whole_file(path) as draft:
        Image.fromarray(array).save(draft, **options)


def save_json(content: dict, path: Path) -> None:
    """Write a JSON file."""
    with whole_file(path) as draft:
        draft.write_text(json.dumps(content), encoding="utf-8")


def absent(jobs: Sequence[tuple], output: Callable[[tuple], Path], what: str) -> list[tuple]:
    """The jobs whose output is not there yet; says how many are done."""
    todo = [job for job in jobs if not output(job).exists()]
    if len(todo) < len(jobs):
        print(f"{what}: {len(jobs) - len(todo)} of {len(jobs)} are there already")
    return todo


def parallel(func: Callable, jobs: Sequence, workers: int, what: str) -> list:
    """`func(job)` of each job, in order, in `workers` processes under a progress bar; the first error is raised."""
    if workers == 1 or len(jobs) < 2:
        return [func(job) for job in tqdm(jobs, desc=what)]
    chunk = max(1, min(_CHUNK, len(jobs) // (4 * workers)))
    with ProcessPoolExecutor(min(workers, len(jobs))) as pool:
        try:
            return list(tqdm(pool.map(func, jobs, chunksize=chunk), desc=what, total=len(jobs)))
        except BaseException:  # an interrupt, too, must not wait for jobs that have not started
            pool.shutdown(wait=False, cancel_futures=True)
            raise
