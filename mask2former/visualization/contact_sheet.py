"""A page of predictions beside their ground truth, chosen evenly from a whole data set."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mask2former.data.datasets.video_records import frame_record, is_video
from mask2former.data.reading import read_image
from mask2former.structures.labels import LabelSet
from mask2former.utils import comm
from mask2former.visualization.captions import font_of
from mask2former.visualization.drawable import KINDS, kind_of, result_of, tracks_in_frame
from mask2former.visualization.thumbnails import Thumbnail, thumbnail
from mask2former.visualization.truth import ground_truth, truth_fields

# h w size of a cell, K classes

_CELL = 360  # longest side of a picture on the page, pixels
_GAP, _LINE, _FONT = 10, 22, 14  # between pictures; height of a line of text; its letters, pixels
_PAPER, _INK, _FRAME = (255, 255, 255), (45, 45, 45), (200, 200, 200)
_UNKNOWN = "no ground truth"


@dataclass(frozen=True)
class _Row:
    """One image of the page: its ground truth as the record tells it, the `kind` of result that is shown, and how many
    of the last parts of its name: frames of different videos have one name."""

    file_name: str
    truth: dict
    kind: str
    predicted: Thumbnail
    name_parts: int


class ContactSheet:
    """Rows of image, ground truth and prediction with a legend, as one PNG.

    Given to :func:`mask2former.evaluation.inference_on_dataset`, it is shown every image and keeps only few of them,
    spread evenly over the data set whatever its length, in little memory. Of several results of a model the panoptic
    one is shown, else the instances, else the semantic one; of a video its middle frame.
    """

    def __init__(self, labels: LabelSet, path: str | Path, count: int, threshold: float = 0.5):
        """
        Args:
            labels: names and colours of the classes, and the ignore value of the ground truth.
            path: the PNG to write; its folder is made when absent.
            count: largest number of rows; 0: nothing is kept and nothing written.
            threshold: smallest score of an instance that is shown.
        """
        self.labels = labels
        self.path = Path(path)
        self.count = count
        self.threshold = threshold
        self._rows: list[_Row] = []
        self._seen = 0
        self._stride = 1

    def add(self, sample: dict, output: dict) -> None:
        """Show it one image or video.

        Args:
            sample: with `file_name` and whatever ground truth :func:`mask2former.visualization.truth.ground_truth`
                finds in a record; or the record of a video.
            output: the model's results at the image's original size; without any nothing is kept.
        """
        due = self._seen % self._stride == 0
        self._seen += 1
        if not due or not self.count:
            return
        if is_video(sample):
            middle, parts = len(sample["file_names"]) // 2, 2
            sample, result = frame_record(sample, middle), tracks_in_frame(output, middle, self.threshold)
        else:
            results, parts = (result_of(output, kind, self.threshold) for kind in KINDS), 1
            result = next((result for result in results if result is not None), None)
        if result is not None:
            predicted = thumbnail(result, self.labels, _CELL)
            self._rows.append(_Row(sample["file_name"], truth_fields(sample), kind_of(result), predicted, parts))
        if len(self._rows) > 2 * self.count:  # twice too many: keep every other one, and every other from now on
            self._rows = self._rows[::2]
            self._stride *= 2

    def save(self) -> Path | None:
        """Write the page and return its path, None where nothing is written.

        Every rank calls it: the main process gathers what all have kept, and writes.
        """
        rows = [row for share in comm.gather(self._rows) for row in share]
        if not rows:
            return None
        chosen = np.linspace(0, len(rows) - 1, min(self.count, len(rows))).round().astype(int)
        page = self._page([rows[i] for i in chosen])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")  # renamed when whole
        page.save(beside, format="PNG")
        os.replace(beside, self.path)
        return self.path

    def _page(self, rows: list[_Row]) -> Image.Image:
        drawn, present = [], np.zeros(self.labels.num_classes + 1, dtype=np.int64)
        for row in rows:
            pictures, pixels = self._pictures(row)
            drawn.append(pictures)
            present += pixels
        width = max(picture.shape[1] for pictures in drawn for picture in pictures)
        heights = [pictures[0].shape[0] for pictures in drawn]
        pages_height = 2 * _GAP + _LINE + sum(h + _LINE + _GAP for h in heights)
        legend = self._legend(present, pages_height)
        page = Image.new("RGB", (4 * _GAP + 3 * width + legend.width, max(pages_height, legend.height)), _PAPER)
        pen = ImageDraw.Draw(page)
        for column, title in enumerate(("image", "ground truth", "prediction")):
            pen.text((_GAP + column * (width + _GAP), _GAP), title, font=font_of(_FONT + 2), fill=_INK)
        top = _GAP + _LINE
        for row, pictures, height in zip(rows, drawn, heights, strict=True):
            for column, picture in enumerate(pictures):
                page.paste(Image.fromarray(picture), (_GAP + column * (width + _GAP), top))
            name = str(Path(*Path(row.file_name).parts[-row.name_parts :]))
            pen.text((_GAP, top + height + 2), name, font=font_of(_FONT - 2), fill=_INK)
            top += height + _LINE + _GAP
        page.paste(legend, (4 * _GAP + 3 * width, 0))
        return page

    def _pictures(self, row: _Row) -> tuple[list[np.ndarray], np.ndarray]:
        """The pictures of a row, uint8 [h,w,3] each; and the pixels of each class, then of no label, int64 [K+1]."""
        height, width = row.predicted.rows.shape
        image = Image.fromarray(read_image(row.file_name, "RGB"))
        image = np.array(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0))
        num_classes = self.labels.num_classes
        pixels = np.append(row.predicted.pixels_of(num_classes), 0)
        prediction = row.predicted.draw(image, self.labels)
        found = ground_truth(row.truth, row.kind)
        if found is None:
            return [image, np.full_like(image, 255), prediction], pixels
        truth = thumbnail(found, self.labels, _CELL)
        pixels += np.append(truth.pixels_of(num_classes), truth.unlabelled.sum())
        return [image, truth.draw_truth(image, self.labels), prediction], pixels

    def _legend(self, present: np.ndarray, height: int) -> Image.Image:
        """Colours and names of the classes on the page, in class order, in as many columns as the height asks for."""
        palette = [*map(tuple, self.labels.palette().tolist()), (70, 70, 70)]
        names = [*self.labels.names, _UNKNOWN]
        entries = [(palette[k], names[k]) for k in np.flatnonzero(present)]
        per_column = max(1, (height - 2 * _GAP - _LINE) // _LINE)
        column_width = (
            _LINE + 2 * _GAP + math.ceil(max((font_of(_FONT).getlength(name) for _, name in entries), default=0))
        )
        columns = max(1, math.ceil(len(entries) / per_column))
        legend = Image.new("RGB", (columns * column_width, height), _PAPER)
        pen = ImageDraw.Draw(legend)
        for i, (color, name) in enumerate(entries):
            x, y = i // per_column * column_width, _GAP + _LINE + i % per_column * _LINE
            pen.rectangle((x, y + 2, x + _LINE - 5, y + _LINE - 5), fill=color, outline=_FRAME)
            pen.text((x + _LINE, y), name, font=font_of(_FONT), fill=_INK)
        return legend
