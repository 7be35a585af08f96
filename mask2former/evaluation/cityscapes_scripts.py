"""The evaluation of cityscapesScripts, called from Python without its side effects."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from mask2former.utils.errors import UserError

_SEMANTIC = "evaluation.evalPixelLevelSemanticLabeling"
_INSTANCE = "evaluation.evalInstanceLevelSemanticLabeling"


def label_ids(names: Sequence[str], instances: bool) -> list[int | None]:
    """Cityscapes' id of each class; None where `instances` asks for classes with instances and it has none.

    Raises:
        UserError: cityscapesScripts is not installed, or knows no such class.
    """
    table = _load("helpers.labels").name2label
    if unknown := [name for name in names if name not in table]:
        raise UserError(
            f"Cityscapes has no classes {unknown[:5]}. A data set of other classes needs another evaluator_type: "
            "sem_seg, coco or coco_panoptic_seg."
        )
    return [table[name].id if table[name].hasInstances or not instances else None for name in names]


def semantic_scores(predictions: Sequence[Path], truths: Sequence[Path]) -> dict:
    """Scores from 0 to 1 of maps of label ids, as the script of that name writes them to its JSON file."""
    scripts = _load(_SEMANTIC)
    args = copy.copy(scripts.args)
    args.quiet, args.JSONOutput = True, False
    with _contained():
        return scripts.evaluateImgLists([str(path) for path in predictions], [str(path) for path in truths], args)


def instance_scores(predictions: Sequence[Path], truths: Sequence[Path]) -> dict:
    """Average precisions from 0 to 1, as the script of that name writes them under "averages".

    Args:
        predictions: text files, a line for each object: mask file beside it, label id and score.
        truths: maps of instance ids.
    """
    scripts = _load(_INSTANCE)
    predictions, truths = [str(path) for path in predictions], [str(path) for path in truths]
    args = copy.copy(scripts.args)
    args.quiet = True
    args.predictionPath = os.path.abspath(os.sep)  # where masks may lie: ranks have folders of their own
    with _contained(), tempfile.TemporaryDirectory() as folder:
        args.gtInstancesFile = os.path.join(folder, "instances.json")  # else a cache among the installed scripts
        # the steps of its evaluateImgLists, which also writes a file to the current folder
        scripts.setInstanceLabels(args)
        instances = scripts.getGtInstances(truths, args)
        matches = scripts.matchGtWithPreds(predictions, truths, instances, args)
        return scripts.computeAverages(scripts.evaluateMatches(matches, args), args)


def _load(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"cityscapesscripts.{name}")
    except ImportError as error:
        raise UserError(
            f"Evaluation on Cityscapes needs the package cityscapesscripts ({error}). Install it with "
            '`pip install "mask2former[cityscapes]"`.'
        ) from error


@contextlib.contextmanager
def _contained() -> Iterator[None]:
    """The scripts print an error and leave the program: here it is raised. Classes without objects warn of means."""
    printed = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), _numpy_in1d():
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            yield
        except SystemExit as error:
            raise UserError(
                f"cityscapesScripts gave up: {printed.getvalue().strip()}. Every rank's predictions must be readable "
                "here; with several machines, on a file system they share (OUTPUT_DIR)."
            ) from error


@contextlib.contextmanager
def _numpy_in1d() -> Iterator[None]:
    """`numpy.in1d`, which cityscapesScripts 2.3 calls and NumPy 2.4 no longer has."""
    if hasattr(np, "in1d"):
        yield
        return
    np.in1d = np.isin
    try:
        yield
    finally:
        del np.in1d
