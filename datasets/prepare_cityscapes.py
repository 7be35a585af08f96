#!/usr/bin/env python
"""Training ids and panoptic annotations of Cityscapes, made by cityscapesScripts.

    pip install "mask2former[cityscapes]"
    python datasets/prepare_cityscapes.py

reads cityscapes/gtFine/{train,val,test}/<city>, writes *_gtFine_labelTrainIds.png beside the annotations, and
cityscapes/gtFine/cityscapes_panoptic_{train,val,test} with its JSON: PNG of segment ids, category ids as in
labelIds.png. Cities are converted side by side; a finished one is not made again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from _prepare import absent, command_line, parallel, read_json, require, save_json, whole_file

from mask2former.utils.errors import UserError

_SPLITS = ("train", "val", "test")
_LAYOUT = "cityscapes/gtFine/{train,val}/<city>/*_gtFine_{polygons.json,instanceIds.png,labelIds.png}"
_SOURCE = "https://www.cityscapes-dataset.com/downloads/ (gtFine_trainvaltest.zip, after registration)"


def prepare(root: Path, workers: int) -> None:
    """Write everything below `root`, files that are there already excepted."""
    try:
        import cityscapesscripts.preparation  # noqa: F401
    except ImportError as error:
        raise UserError('cityscapesScripts is missing: pip install "mask2former[cityscapes]".') from error
    fine = root / "cityscapes" / "gtFine"
    for split in ("train", "val"):
        require(fine / split, _LAYOUT, _SOURCE)
    _write_train_ids(fine, workers)
    for split in _SPLITS:
        if (fine / split).is_dir():
            _write_panoptic(fine, split, workers)


def _write_train_ids(fine: Path, workers: int) -> None:
    jobs = [
        (polygons, polygons.with_name(polygons.name.replace("_polygons.json", "_labelTrainIds.png")))
        for split in _SPLITS
        for polygons in sorted((fine / split).glob("*/*_gtFine_polygons.json"))
    ]
    if not jobs:
        raise UserError(f"{fine} holds no */*/*_gtFine_polygons.json. Expected {_LAYOUT}, from {_SOURCE}.")
    parallel(_train_ids, absent(jobs, lambda job: job[1], "labelTrainIds.png"), workers, "labelTrainIds.png")


def _train_ids(job: tuple[Path, Path]) -> None:
    from cityscapesscripts.preparation.json2labelImg import json2labelImg

    polygons, output = job
    with _quiet(polygons), whole_file(output) as draft:
        json2labelImg(str(polygons), str(draft), "trainIds")


def _write_panoptic(fine: Path, split: str, workers: int) -> None:
    """One JSON and one folder of PNG files per split, put together from those of its cities."""
    folder = fine / f"cityscapes_panoptic_{split}"
    output = folder.with_suffix(".json")
    if not absent([(output,)], lambda job: job[0], output.name):
        return
    cities = sorted(p for p in (fine / split).iterdir() if any(p.glob("*_gtFine_instanceIds.png")))
    if not cities:
        raise UserError(f"{fine / split} holds no */*_gtFine_instanceIds.png. Expected {_LAYOUT}, from {_SOURCE}.")
    parts = fine / f".{folder.name}"  # a JSON per city, until all are there
    jobs = [(city, split, folder, parts / f"{city.name}.json") for city in cities]
    parallel(_panoptic, absent(jobs, lambda job: job[3], folder.name), workers, folder.name)
    contents = [read_json(job[3]) for job in jobs]
    merged = {key: [entry for content in contents for entry in content[key]] for key in ("images", "annotations")}
    save_json({**merged, "categories": contents[0]["categories"]}, output)
    shutil.rmtree(parts)


def _panoptic(job: tuple[Path, str, Path, Path]) -> None:
    """One city: its PNG files to `folder`, its JSON to `part`, the latter when all are there."""
    from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic

    city, split, folder, part = job
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{city.name}-", dir=folder.parent) as draft, _quiet(city):
        # the function converts every city of a split: it is shown one that has this city alone
        shown = Path(draft, "shown", split)
        shown.mkdir(parents=True)
        (shown / city.name).symlink_to(city.resolve(), target_is_directory=True)
        convert2panoptic(str(shown.parent), draft, setNames=[split])
        for png in Path(draft, folder.name).iterdir():
            os.replace(png, folder / png.name)
        save_json(read_json(Path(draft, f"{folder.name}.json")), part)


@contextlib.contextmanager
def _quiet(source: Path):
    """Without the printed progress of cityscapesScripts; that it gives up, and on what, becomes a UserError."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            yield
        except (SystemExit, OSError, ValueError, KeyError) as error:
            raise UserError(f"cityscapesScripts cannot convert {source} ({error!r}). Download it again.") from error


if __name__ == "__main__":
    command_line(prepare, __doc__)
