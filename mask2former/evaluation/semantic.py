"""Semantic segmentation: the confusion matrix of a data set, and its predictions as a COCO-style file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mask2former.evaluation.confusion import count_pixels, semantic_metrics
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.files import write_json, write_unfinished
from mask2former.evaluation.labels import labels_for
from mask2former.evaluation.truth import semantic_truth
from mask2former.structures.labels import LabelSet
from mask2former.structures.masks import rle_encode
from mask2former.utils import comm
from mask2former.utils.errors import UserError

PREDICTIONS_FILE = "sem_seg_predictions.json"


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, fwIoU, mACC, pACC and per-class IoU and ACC at the images' original size, in percent.

    The same metrics come out on every rank. See :func:`mask2former.evaluation.confusion.semantic_metrics` for their
    definitions.
    """

    def __init__(
        self, dataset: str | LabelSet, output_dir: str | Path | None = None, *, save_predictions: bool = False
    ):
        """
        Args:
            dataset: name of a registered data set, or its classes in the order of the model's outputs and the ignore
                value of the ground truth.
            output_dir: folder of the predictions file, made when absent.
            save_predictions: whether `evaluate` writes `sem_seg_predictions.json` there: one entry per image and
                predicted class, ``{"file_name", "category_id" (the data set's own id), "segmentation" (COCO RLE)}``.
        """
        if save_predictions and output_dir is None:
            raise ValueError("SemSegEvaluator needs an output_dir to save predictions in.")
        self.labels = labels_for(dataset)
        self.predictions_path = Path(output_dir) / PREDICTIONS_FILE if save_predictions else None
        self.reset()

    def reset(self) -> None:
        num_classes = self.labels.num_classes
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self._predictions: list[dict] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Count one batch.

        Args:
            inputs: with `file_name` and `sem_seg_file_name`, a mask of the image's original size; without this, with
                `pan_seg_file_name` and `segments_info`, from which the mask is made.
            outputs: with `sem_seg`, scores [K,H,W] at that size.

        Raises:
            UserError: no ground truth, or one that does not fit the prediction in size or values.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            predicted = self._predicted_classes(sample, output)
            self.confusion += self._count(sample, predicted)
            if self.predictions_path is not None:
                self._predictions.extend(self._encode(sample["file_name"], predicted))

    def evaluate(self) -> dict[str, dict[str, float]]:
        self.confusion = np.sum(comm.all_gather(self.confusion), axis=0)
        if self.predictions_path is not None:
            shares = comm.gather(self._predictions)
            if comm.is_main_process():
                write_json([entry for share in shares for entry in share], self.predictions_path)
        return {"sem_seg": semantic_metrics(self.confusion, self.labels.names)}

    def keep(self) -> list[Path]:
        shares = comm.gather(self._predictions)
        if not comm.is_main_process() or self.predictions_path is None:
            return []
        return write_unfinished([entry for share in shares for entry in share], self.predictions_path)

    def _predicted_classes(self, sample: dict, output: dict) -> np.ndarray:
        scores = output.get("sem_seg")
        if scores is None:
            raise UserError(
                "The model gives no semantic result, which this evaluation needs. "
                "Set MODEL.MASK_FORMER.TEST.SEMANTIC_ON to True."
            )
        if len(scores) != self.labels.num_classes:
            raise UserError(
                f"The model scores {len(scores)} classes for {sample['file_name']}, but the data set has "
                f"{self.labels.num_classes}. Set MODEL.SEM_SEG_HEAD.NUM_CLASSES to {self.labels.num_classes}, "
                "or choose the data set the model was made for in DATASETS.TEST."
            )
        # max, since argmax over the first axis takes eight times as long on a CPU (torch 2.x)
        return scores.max(0).indices.to(torch.int32).cpu().numpy()

    def _count(self, sample: dict, predicted: np.ndarray) -> np.ndarray:
        truth, path = semantic_truth(sample, self.labels.ignore_label)
        if truth.shape != predicted.shape:
            raise UserError(
                f"{path}: the mask is {truth.shape[1]}x{truth.shape[0]} pixels, but the prediction for "
                f"{sample['file_name']} is {predicted.shape[1]}x{predicted.shape[0]} (width x height). "
                "A mask must have the size of its image: correct the file, or height and width in the record."
            )
        try:
            return count_pixels(truth, predicted, self.labels.num_classes, self.labels.ignore_label)
        except ValueError as error:
            raise UserError(
                f"{path}: {error}, other than the ignore value {self.labels.ignore_label}. "
                "Correct the mask, or the class names and the ignore value of the data set."
            ) from error

    def _encode(self, file_name: str, predicted: np.ndarray) -> list[dict]:
        ids = self.labels.dataset_ids or range(self.labels.num_classes)
        return [
            {"file_name": file_name, "category_id": int(ids[k]), "segmentation": rle_encode(predicted == k)}
            for k in np.unique(predicted)
        ]
