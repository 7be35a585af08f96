"""Cityscapes' own metrics of semantic and instance segmentation, computed by cityscapesScripts."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mask2former.data.catalog import MetadataCatalog
from mask2former.evaluation.cityscapes_scripts import instance_scores, label_ids, semantic_scores
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.labels import labels_for
from mask2former.structures import Instances
from mask2former.structures.labels import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)


class CityscapesEvaluator(DatasetEvaluator):
    """Writes each prediction to files as they come; the main rank has cityscapesScripts compare them in the end.

    The same metrics come out on every rank. A subclass writes one kind of files and reads its scores.
    """

    task: str  # of the results
    folder_name: str  # of the predictions below output_dir
    truth_ending: str  # of the file names of the ground truth
    instances: bool  # whether only classes with instances are predicted

    def __init__(
        self,
        dataset: str | LabelSet,
        output_dir: str | Path | None = None,
        *,
        gt_dir: str | Path | None = None,
        save_predictions: bool = False,
    ):
        """
        Args:
            dataset: name of a registered data set, or its classes in the order of the model's outputs, named as
                Cityscapes names them.
            output_dir: folder in which the predictions are written; made when absent. None: one of the system's.
            gt_dir: folder of the ground truth, with a folder for each city; None: the metadata's `gt_dir`.
            save_predictions: whether the predictions stay there, in the form that the benchmark's server takes. Images
                without ground truth are then allowed.

        Raises:
            UserError: cityscapesScripts is missing or does not know a class, or there is no `gt_dir`.
        """
        if save_predictions and output_dir is None:
            raise ValueError(f"{type(self).__name__} needs an output_dir to save predictions in.")
        self.labels = labels_for(dataset)
        self.label_ids = label_ids(self.labels.names, self.instances)
        if gt_dir is None and not isinstance(dataset, LabelSet):
            gt_dir = MetadataCatalog.get(dataset).get("gt_dir")
        if gt_dir is None:
            raise UserError(
                "Evaluation on Cityscapes needs the folder of the ground truth. Set gt_dir (.../gtFine/val) in the "
                "data set's metadata."
            )
        self.gt_dir, self.save_predictions = Path(gt_dir), save_predictions
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.reset()

    def reset(self) -> None:
        self._temporary: tempfile.TemporaryDirectory | None = None
        self._truths: dict[Path, Path | None] = {}  # by the file of the prediction

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Write the predictions of a batch.

        Args:
            inputs: with `file_name`, <city>/<name>_leftImg8bit.png, whose ground truth is in <city> below `gt_dir`.
            outputs: see the subclass.

        Raises:
            UserError: no result of this kind, or no ground truth.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            image = Path(sample["file_name"])
            name = image.stem.removesuffix("_leftImg8bit")
            truth = self._existing(self.gt_dir / image.parent.name / f"{name}_gtFine_{self.truth_ending}.png")
            self._truths[self._write(name, output)] = truth

    def evaluate(self) -> dict[str, dict[str, float]]:
        truths = {}
        for share in comm.gather(self._truths):
            truths.update(share)
        results = self._evaluate(truths) if comm.is_main_process() else None
        results = comm.all_gather(results)[0]  # the other ranks' files are needed until here
        if self._temporary is not None:
            self._temporary.cleanup()
        return results

    def _evaluate(self, truths: dict[Path, Path | None]) -> dict[str, dict[str, float]]:
        found = {path: truths[path] for path in sorted(truths, key=lambda path: path.name) if truths[path] is not None}
        if not found:
            logger.info("No image of %d has ground truth: there are predictions, and no metrics.", len(truths))
            return {}
        return {self.task: self._metrics(list(found), list(found.values()))}

    def _existing(self, truth: Path) -> Path | None:
        if truth.is_file():
            return truth
        if self.save_predictions:
            return None
        raise UserError(
            f"Ground truth {truth} does not exist. Unpack Cityscapes' gtFine_trainvaltest.zip as datasets/README.md "
            "says, correct gt_dir in the data set's metadata, or set TEST.SAVE_PREDICTIONS True to write result files "
            "alone."
        )

    def _folder(self) -> Path:
        """Where this rank writes."""
        if self.save_predictions:
            folder = self.output_dir / self.folder_name
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        if self._temporary is None:
            if self.output_dir is not None:
                self.output_dir.mkdir(parents=True, exist_ok=True)
            self._temporary = tempfile.TemporaryDirectory(prefix=f"{self.folder_name}_", dir=self.output_dir)
        return Path(self._temporary.name)

    def _result(self, output: dict, key: str, flag: str) -> torch.Tensor | Instances:
        if output.get(key) is None:
            raise UserError(
                f"The model gives no {key}, which this evaluation needs. Set MODEL.MASK_FORMER.TEST.{flag} to True."
            )
        return output[key]

    def _write(self, name: str, output: dict) -> Path:
        """Write the prediction for an image; the file that the script is given."""
        raise NotImplementedError

    def _metrics(self, predictions: list[Path], truths: list[Path]) -> dict[str, float]:
        """In percent, of files one to one."""
        raise NotImplementedError


class CityscapesSemSegEvaluator(CityscapesEvaluator):
    """IoU and iIoU over classes, IoU_sup and iIoU_sup over categories, and IoU-<class>, in percent.

    Outputs have `sem_seg`, scores [K,H,W] at the image's size.
    """

    task, folder_name, truth_ending, instances = "sem_seg", "cityscapes_sem_seg", "labelIds", False

    def _write(self, name: str, output: dict) -> Path:
        classes = self._result(output, "sem_seg", "SEMANTIC_ON").max(0).indices.cpu().numpy()
        path = self._folder() / f"{name}_pred.png"
        Image.fromarray(np.array(self.label_ids, dtype=np.uint8)[classes]).save(path)
        return path

    def _metrics(self, predictions: list[Path], truths: list[Path]) -> dict[str, float]:
        scores = semantic_scores(predictions, truths)
        return {
            "IoU": 100 * scores["averageScoreClasses"],
            "iIoU": 100 * scores["averageScoreInstClasses"],
            "IoU_sup": 100 * scores["averageScoreCategories"],
            "iIoU_sup": 100 * scores["averageScoreInstCategories"],
            **{f"IoU-{name}": 100 * scores["classScores"][name] for name in self.labels.names},
        }


class CityscapesInstanceEvaluator(CityscapesEvaluator):
    """AP, AP50 and AP-<class> of Cityscapes' classes with instances, in percent.

    Outputs have `instances`: pred_masks [N,H,W] bool of the image's size, scores [N], pred_classes [N]; those of other
    classes do not count.
    """

    task, folder_name, truth_ending, instances = "segm", "cityscapes_instances", "instanceIds", True

    def _write(self, name: str, output: dict) -> Path:
        found = self._result(output, "instances", "INSTANCE_ON")
        folder, lines = self._folder(), []
        masks = getattr(found.pred_masks, "tensor", found.pred_masks)
        for i, (mask, score, k) in enumerate(zip(masks, found.scores.tolist(), found.pred_classes.tolist())):
            if self.label_ids[k] is not None:
                Image.fromarray(mask.bool().cpu().numpy()).save(folder / f"{name}_{i}.png", compress_level=1)
                lines.append(f"{name}_{i}.png {self.label_ids[k]} {score}\n")
        path = folder / f"{name}_pred.txt"
        path.write_text("".join(lines))
        return path

    def _metrics(self, predictions: list[Path], truths: list[Path]) -> dict[str, float]:
        scores = instance_scores(predictions, truths)
        names = [name for name, own_id in zip(self.labels.names, self.label_ids) if own_id is not None]
        return {
            "AP": 100 * float(scores["allAp"]),
            "AP50": 100 * float(scores["allAp50%"]),
            **{f"AP-{name}": 100 * float(scores["classes"][name]["ap"]) for name in names},
        }
