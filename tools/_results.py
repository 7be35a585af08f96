"""Result files that evaluators write with TEST.SAVE_PREDICTIONS, read back as something to draw."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mask2former.data.reading import read_panoptic
from mask2former.structures import LabelSet, rle_decode
from mask2former.utils.errors import UserError
from mask2former.visualization import Objects, PanopticMap, SemanticMap
from mask2former.visualization.drawable import Drawable

# the files that are looked for in a folder, the most telling first
NAMES = ("predictions.json", "coco_instances_results.json", "sem_seg_predictions.json")
_PNG_FOLDER = "panoptic"  # beside predictions.json


def find_results(path: Path) -> Path:
    """The result file itself, or the first of `NAMES` in a folder.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    what = f"the folder holds none of {', '.join(NAMES)}" if path.is_dir() else "no such file or folder"
    raise UserError(
        f"--input {path}: {what}. Give a result file, or a folder with one; evaluation writes them into "
        "OUTPUT_DIR/inference with TEST.SAVE_PREDICTIONS True."
    )


class ResultFile:
    """Results by image, in one of COCO's formats; category ids are the data set's own.

    instances  a list of {image_id, category_id, segmentation (RLE), score}
    panoptic   {"annotations": [{image_id, file_name (of a PNG in the folder `panoptic` beside), segments_info}]}
    semantic   a list of {file_name (of the image), category_id, segmentation (RLE)}
    """

    def __init__(self, path: Path, labels: LabelSet, threshold: float):
        """
        Args:
            path: the file.
            labels: classes of the data set that was evaluated.
            threshold: smallest score of an instance that is taken.

        Raises:
            UserError: the file is not such a file.
        """
        self.path, self.labels, self.threshold = path, labels, threshold
        own_ids = labels.dataset_ids or range(labels.num_classes)
        self._classes = {int(own): k for k, own in enumerate(own_ids)}
        entries = self._read()
        self.key = "image_id" if "image_id" in entries[0] else "file_name"
        needed, self._drawable = self._format(entries[0])
        self._by_image = defaultdict(list)
        for number, entry in enumerate(entries):
            if absent := [key for key in needed if key not in entry]:
                raise UserError(f"{path}: entry {number} has no {absent[0]!r}; expected {', '.join(needed)}.")
            self._by_image[entry[self.key]].append(entry)

    def known(self, records: Sequence[dict]) -> list[dict]:
        """The records, of the data set that was evaluated, that the file says something about.

        Raises:
            UserError: the file tells of an image that is not among the records.
        """
        if unknown := self._by_image.keys() - {record[self.key] for record in records}:
            raise self._other_data_set(f"no image with the {self.key} {next(iter(unknown))!r}")
        return [record for record in records if record[self.key] in self._by_image]

    def result(self, record: dict, size: tuple[int, int]) -> Drawable:
        """The result for one of the `known` records, whose image has the (height, width) `size`.

        Raises:
            UserError: it tells of a category that the data set lacks.
        """
        return self._drawable(self._by_image[record[self.key]], size)

    def _read(self) -> list[dict]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path} cannot be read as JSON ({error}).") from error
        entries = content.get("annotations") if isinstance(content, dict) else content
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{self.path} is no result file: expected a list of results, or {{"annotations": [...]}}.')
        if not entries:
            raise UserError(f"{self.path} holds no result: the model found nothing. Nothing is drawn.")
        return entries

    def _format(self, entry: dict):
        """The keys of every entry, and the function that turns those of an image into a drawable."""
        if "segments_info" in entry:
            return ("image_id", "file_name", "segments_info"), self._panoptic
        if "image_id" in entry:
            return ("image_id", "category_id", "segmentation", "score"), self._instances
        return ("file_name", "category_id", "segmentation"), self._semantic

    def _class(self, category_id: int) -> int:
        if category_id not in self._classes:
            raise self._other_data_set(f"no category with the id {category_id!r}")
        return self._classes[category_id]

    def _other_data_set(self, lack: str) -> UserError:
        return UserError(f"{self.path}: the data set has {lack}. Name the one that was evaluated in --dataset.")

    def _panoptic(self, entries: list[dict], size: tuple[int, int]) -> PanopticMap:
        things, segments = set(self.labels.thing_ids), []
        for segment in entries[0]["segments_info"]:
            k = self._class(segment["category_id"])
            segments.append({"id": segment["id"], "category_id": k, "isthing": k in things})
        return PanopticMap(read_panoptic(self.path.parent / _PNG_FOLDER / entries[0]["file_name"]), segments)

    def _instances(self, entries: list[dict], size: tuple[int, int]) -> Objects:
        kept = [entry for entry in entries if entry["score"] >= self.threshold]
        return Objects(
            size,
            [entry["segmentation"] for entry in kept],
            [self._class(entry["category_id"]) for entry in kept],
            [entry["score"] for entry in kept],
        )

    def _semantic(self, entries: list[dict], size: tuple[int, int]) -> SemanticMap:
        classes = np.full(size, -1, dtype=np.int32)
        for entry in entries:
            classes[rle_decode(entry["segmentation"])] = self._class(entry["category_id"])
        return SemanticMap(classes)
