"""Panoptic segmentation: PQ of a data set, and its predictions in the format of COCO's servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mask2former.data.reading import read_panoptic
from mask2former.evaluation.background import Background
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.files import write_json, write_unfinished
from mask2former.evaluation.labels import labels_for
from mask2former.evaluation.panoptic_files import write_panoptic
from mask2former.evaluation.pq import PanopticQuality, pq_stats
from mask2former.structures.labels import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "predictions.json"
PREDICTIONS_FOLDER = "panoptic"

# the counts of an image with ground truth, and the entry in the predictions file of one whose prediction was saved
_Taken = tuple[PanopticQuality | None, dict | None]


class PanopticEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ over all classes, things and stuff and for each class, at the images' original size, in percent.

    The same metrics come out on every rank. Ground truth is read and counted in threads while the model goes on. See
    :mod:`mask2former.evaluation.pq` for the definitions.
    """

    def __init__(
        self, dataset: str | LabelSet, output_dir: str | Path | None = None, *, save_predictions: bool = False
    ):
        """
        Args:
            dataset: name of a registered data set, or its classes in the order of the model's outputs.
            output_dir: folder of the predictions, made when absent.
            save_predictions: whether to write `panoptic/<image>.png` (segment id = R + 256 G + 65536 B) image by
                image, and in `evaluate` `predictions.json`: ``{"annotations": [{"image_id", "file_name",
                "segments_info": [{"id", "category_id" (the data set's own id)}]}]}``. Images without ground truth
                are then allowed.
        """
        if save_predictions and output_dir is None:
            raise ValueError("PanopticEvaluator needs an output_dir to save predictions in.")
        self.labels = labels_for(dataset)
        self.output_dir = Path(output_dir) if save_predictions else None
        self._work = Background(self._collect)
        self.reset()

    def reset(self) -> None:
        self._work.cancel()
        self.quality, self._images = PanopticQuality(self.labels.num_classes), 0
        self._predictions: list[dict] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Begin to count a batch.

        Args:
            inputs: with `file_name`, `image_id`, `pan_seg_file_name` (a PNG of segment ids of the image's original
                size) and `segments_info` (dicts with `id`, `category_id` from 0 to K - 1, `iscrowd`).
            outputs: with `panoptic_seg`, the pair of segment ids, integers [H,W], and of dicts with `id` and
                `category_id`.

        Raises:
            UserError: no result, no ground truth, or one that does not fit the other; also for an earlier batch.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            ids, segments = self._prediction(sample, output)
            self._work.submit(self._take_in, sample, ids, segments)

    def finish(self) -> None:
        self._work.finish()

    def evaluate(self) -> dict[str, dict[str, float]]:
        self.finish()  # where no loop has called it
        shares = comm.all_gather((self.quality, self._images))
        if self.output_dir is not None:
            self._write_predictions(comm.gather(self._predictions))
            if not any(images for _, images in shares):
                logger.info("No image has panoptic ground truth: there are predictions, and no metrics.")
                return {}
        whole = PanopticQuality(self.labels.num_classes)
        for quality, _ in shares:
            whole.merge(quality)
        return {"panoptic_seg": whole.results(self.labels)}

    def keep(self) -> list[Path]:
        self._work.finish_good()  # no error of one rank may keep it from meeting the others
        shares = comm.gather(self._predictions)
        if not comm.is_main_process() or self.output_dir is None:
            return []
        entries = [entry for share in shares for entry in share]
        return write_unfinished({"annotations": entries}, self.output_dir / PREDICTIONS_FILE)

    def _prediction(self, sample: dict, output: dict) -> tuple[np.ndarray, list[dict]]:
        if output.get("panoptic_seg") is None:
            raise UserError(
                "The model gives no panoptic result, which this evaluation needs. "
                "Set MODEL.MASK_FORMER.TEST.PANOPTIC_ON to True."
            )
        ids, segments = output["panoptic_seg"]
        if self.output_dir is None and not sample.get("pan_seg_file_name"):
            raise UserError(
                f"{sample['file_name']} has no ground truth (no pan_seg_file_name in its record), so it cannot be "
                "evaluated. Name a data set with panoptic annotations in DATASETS.TEST, or set "
                "TEST.SAVE_PREDICTIONS True to write result files alone."
            )
        return ids.cpu().numpy(), segments

    def _take_in(self, sample: dict, ids: np.ndarray, segments: list[dict]) -> _Taken:
        """What a thread does with an image."""
        entry = None if self.output_dir is None else self._save(sample, ids, segments)
        if not (path := sample.get("pan_seg_file_name")):
            return None, entry
        truth = read_panoptic(path)
        try:
            return pq_stats(truth, sample["segments_info"], ids, segments, self.labels.num_classes), entry
        except ValueError as error:
            raise UserError(
                f"{path}, against the prediction for {sample['file_name']}: {error}. Correct the PNG file or its "
                "segments_info, or evaluate a model that was made for these classes."
            ) from error

    def _collect(self, result: _Taken) -> None:
        quality, entry = result
        if quality is not None:
            self.quality.merge(quality)
            self._images += 1
        if entry is not None:
            self._predictions.append(entry)

    def _save(self, sample: dict, ids: np.ndarray, segments: list[dict]) -> dict:
        folder = self.output_dir / PREDICTIONS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{Path(sample['file_name']).stem}.png"
        write_panoptic(ids, folder / name)
        own_ids = self.labels.dataset_ids or range(self.labels.num_classes)
        info = [{"id": int(s["id"]), "category_id": int(own_ids[s["category_id"]])} for s in segments]
        return {"image_id": sample["image_id"], "file_name": name, "segments_info": info}

    def _write_predictions(self, shares: list[list[dict]]) -> None:
        """On the main rank, which alone has the shares."""
        if not comm.is_main_process():
            return
        entries = [entry for share in shares for entry in share]
        if len({entry["file_name"] for entry in entries}) < len(entries):
            logger.warning("Some images share a name: in %s one prediction replaced another.", self.output_dir)
        write_json({"annotations": entries}, self.output_dir / PREDICTIONS_FILE)
