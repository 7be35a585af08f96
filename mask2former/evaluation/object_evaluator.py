"""What evaluators of instances share, of images and of videos: classes, ground truth, ranks, the predictions file."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mask2former.data.catalog import MetadataCatalog
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.files import remove_unfinished, write_json, write_unfinished
from mask2former.evaluation.labels import labels_for
from mask2former.evaluation.objects import id_order
from mask2former.structures.labels import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)


class ObjectEvaluator(DatasetEvaluator):
    """Collects encoded predictions and ground truth; the metrics are computed on the main rank.

    A subclass says what is kept of an input (an item, with its id) and what is measured. The metrics are the same on
    every rank.
    """

    # file of the predictions in the output folder, what an input is called, and the attribute of an item with its id
    predictions_file: str
    noun: str
    id_name: str

    def __init__(
        self,
        dataset: str | LabelSet,
        output_dir: str | Path | None = None,
        *,
        json_file: str | Path | None = None,
        save_predictions: bool = False,
    ):
        """
        Args:
            dataset: name of a registered data set, or its classes in the order of the model's outputs. Only things
                are evaluated; where no class is a thing, all are.
            output_dir: folder of the predictions file, made when absent.
            json_file: file with the ground truth; None: the metadata's `json_file` where that exists, else the ground
                truth of the records.
            save_predictions: whether `evaluate` writes the predictions file there. It is also written where there is
                no ground truth.
        """
        if save_predictions and output_dir is None:
            raise ValueError(f"{type(self).__name__} needs an output_dir to save predictions in.")
        labels = labels_for(dataset)
        own_ids = labels.dataset_ids or range(labels.num_classes)
        self.category_ids = {i: int(own_ids[i]) for i in labels.thing_ids or range(labels.num_classes)}
        self.categories = [{"id": own_id, "name": labels.names[i]} for i, own_id in self.category_ids.items()]
        if json_file is None and not isinstance(dataset, LabelSet):
            json_file = _existing_json_file(dataset)
        self.json_file, self.save_predictions = json_file, save_predictions
        self.predictions_path = None if output_dir is None else Path(output_dir) / self.predictions_file
        self.reset()

    def reset(self) -> None:
        self._predictions: list[Any] = []
        self._truth: list[Any] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Encode the predictions of a batch and, where there is no `json_file`, its ground truth."""
        for sample, output in zip(inputs, outputs, strict=True):
            self._predictions.append(self._encode(sample, output))
            if self.json_file is None:
                self._truth.append(self._true_objects(sample, self._predictions[-1]))

    def evaluate(self) -> dict[str, dict[str, float]]:
        shares = comm.gather((self._predictions, self._truth))
        results = self._evaluate(shares) if comm.is_main_process() else None
        return comm.all_gather(results)[0]

    def keep(self) -> list[Path]:
        shares = comm.gather(self._predictions)
        if not comm.is_main_process() or self.predictions_path is None:
            return []
        found = self._ordered([item for share in shares for item in share])
        return write_unfinished(self._server_format(found), self.predictions_path)

    def _encode(self, sample: dict, output: dict) -> Any:
        """The predictions for an input, as an item."""
        raise NotImplementedError

    def _true_objects(self, sample: dict, predicted: Any) -> Any:
        """The ground truth that an input carries, as an item."""
        raise NotImplementedError

    def _all_truth(self, predictions: list[Any], truth: list[Any]) -> Sequence:
        """The ground truth of these items, from `json_file` or `truth`; empty where there is no object."""
        raise NotImplementedError

    def _measure(self, predictions: list[Any], truth: Sequence) -> dict[str, dict[str, float]]:
        """The metrics by task."""
        raise NotImplementedError

    def _server_format(self, predictions: list[Any]) -> list[dict]:
        """The content of the predictions file."""
        raise NotImplementedError

    def _evaluate(self, shares: list[tuple[list[Any], list[Any]]]) -> dict[str, dict[str, float]]:
        """On the main rank, which alone has the shares."""
        predictions = self._ordered([item for share, _ in shares for item in share])
        if self.save_predictions:
            self._save(predictions)
        results, problem = {}, None
        try:
            truth = self._all_truth(predictions, self._ordered([item for _, share in shares for item in share]))
            results = self._measure(predictions, truth) if truth else {}
        except UserError as error:  # the ground truth does not fit; the predictions are worth their time all the same
            problem = error
        if results:
            if not self.save_predictions and self.predictions_path is not None:
                remove_unfinished(self.predictions_path)  # of an earlier pass
            return results
        if not self.save_predictions:
            self._save(predictions)
        where = f"are in {self.predictions_path}" if self.predictions_path else "were not saved"
        what = "The ground truth does not fit" if problem else "No ground truth object"
        logger.warning("%s: no AP of %d %s. The predictions %s.", what, len(predictions), self.noun, where)
        if problem:
            raise problem
        return {}

    def _save(self, predictions: list[Any]) -> None:
        if self.predictions_path is not None:
            write_json(self._server_format(predictions), self.predictions_path)

    def _ordered(self, items: Sequence[Any]) -> list[Any]:
        """By ascending id; of an input that came twice, the first."""
        id_of = attrgetter(self.id_name)
        found: dict[Hashable, Any] = {}
        for item in sorted(items, key=lambda item: id_order(id_of(item))):
            found.setdefault(id_of(item), item)
        return list(found.values())


def score_array(scores: torch.Tensor | Sequence | np.ndarray, file_name: str) -> np.ndarray:
    """Scores as float64 [N].

    Raises:
        UserError: some are nan.
    """
    scores = as_array(scores, torch.float64)
    if np.isnan(scores).any():
        raise UserError(
            f"The model's scores for {file_name} are not numbers (nan), as after a training that has "
            "diverged. Evaluate an earlier checkpoint; train with a smaller SOLVER.BASE_LR or without SOLVER.AMP."
        )
    return scores


def as_array(values: torch.Tensor | Sequence | np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """An array of this type, in the memory of this machine."""
    return torch.as_tensor(values).detach().to("cpu", dtype).numpy()


def _existing_json_file(name: str) -> str | None:
    path = MetadataCatalog.get(name).get("json_file")
    if path and not Path(path).is_file():
        logger.info("%s, the json_file of %s, does not exist: ground truth is taken from the records.", path, name)
        return None
    return path
