"""Instance segmentation: COCO's AP of masks and boxes, and the predictions as a file for COCO's servers."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np
import torch

from mask2former.data.catalog import MetadataCatalog
from mask2former.data.datasets.coco_json import read_coco
from mask2former.evaluation.coco_ap import average_precision
from mask2former.evaluation.encoding import encode_masks
from mask2former.evaluation.evaluator import DatasetEvaluator
from mask2former.evaluation.files import write_json
from mask2former.evaluation.instance_truth import TRUTH_COLUMNS, truth_of_file, truth_of_record
from mask2former.evaluation.labels import labels_for
from mask2former.evaluation.objects import ImageObjects, coco_annotations, id_order
from mask2former.structures import Instances
from mask2former.structures.labels import LabelSet
from mask2former.utils import comm
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

PREDICTIONS_FILE = "coco_instances_results.json"

# task -> key of COCO's annotations -> column of predictions; masks have their own place
_TASKS = {
    "segm": {"category_id": "category_id", "score": "score", "area": "area"},
    "bbox": {"category_id": "category_id", "score": "score", "area": "box_area", "bbox": "bbox"},
}


class InstanceEvaluator(DatasetEvaluator):
    """AP and AR of masks and of boxes, by IoU, by area and by class, in percent, equal to pycocotools'.

    Masks are encoded as they come, so memory hardly grows with the data set. The metrics are computed on the main
    rank; the same come out on every rank. See :func:`mask2former.evaluation.coco_ap.average_precision`.
    """

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
            json_file: COCO file with the ground truth; None: the metadata's `json_file` where that exists, else the
                records' `annotations`, else the things of their panoptic maps.
            save_predictions: whether `evaluate` writes `coco_instances_results.json` there, a list of
                ``{"image_id", "category_id" (the data set's own id), "segmentation" (COCO RLE), "score",
                "bbox" [x,y,w,h]}``. It is also written where there is no ground truth.
        """
        if save_predictions and output_dir is None:
            raise ValueError("InstanceEvaluator needs an output_dir to save predictions in.")
        labels = labels_for(dataset)
        own_ids = labels.dataset_ids or range(labels.num_classes)
        self.category_ids = {i: int(own_ids[i]) for i in labels.thing_ids or range(labels.num_classes)}
        self.categories = [{"id": own_id, "name": labels.names[i]} for i, own_id in self.category_ids.items()]
        if json_file is None and not isinstance(dataset, LabelSet):
            json_file = _existing_json_file(dataset)
        self.json_file, self.save_predictions = json_file, save_predictions
        self.predictions_path = None if output_dir is None else Path(output_dir) / PREDICTIONS_FILE
        self.reset()

    def reset(self) -> None:
        self._predictions: list[ImageObjects] = []
        self._truth: list[ImageObjects] = []

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Encode the predictions of a batch and, where there is no `json_file`, its ground truth.

        Args:
            inputs: with `image_id`, `file_name` and perhaps ground truth, see
                :func:`mask2former.evaluation.instance_truth.truth_of_record`.
            outputs: with `instances`: pred_masks [N,H,W] of the image's size, scores [N], pred_classes [N] and perhaps
                pred_boxes [N,4] (x0,y0,x1,y1); without them, boxes are those around the masks.

        Raises:
            UserError: no result, no ground truth, or one of another size.
        """
        for sample, output in zip(inputs, outputs, strict=True):
            predicted = self._encode(sample, output.get("instances"))
            self._predictions.append(predicted)
            if self.json_file is None:
                self._truth.append(truth_of_record(sample, self.category_ids, predicted.masks.size))

    def evaluate(self) -> dict[str, dict[str, float]]:
        shares = comm.gather((self._predictions, self._truth))
        results = self._evaluate(shares) if comm.is_main_process() else None
        return comm.all_gather(results)[0]

    def _encode(self, sample: dict, instances: Instances | None) -> ImageObjects:
        if instances is None:
            raise UserError(
                "The model gives no instances, which this evaluation needs. "
                "Set MODEL.MASK_FORMER.TEST.INSTANCE_ON to True."
            )
        classes = _array(instances.pred_classes, torch.int64)
        scores = _array(instances.scores, torch.float64)
        if np.isnan(scores).any():
            raise UserError(
                f"The model's scores for {sample['file_name']} are not numbers (nan), as after a training that has "
                "diverged. Evaluate an earlier checkpoint; train with a smaller SOLVER.BASE_LR or without SOLVER.AMP."
            )
        keep = np.flatnonzero(np.isin(classes, list(self.category_ids)))
        if len(keep) < len(classes):
            instances = instances[torch.from_numpy(keep)]
        masks = encode_masks(instances.pred_masks)
        boxes = masks.boxes
        if instances.has("pred_boxes"):
            boxes = _array(getattr(instances.pred_boxes, "tensor", instances.pred_boxes), torch.float64)
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        columns = {
            "category_id": np.array([self.category_ids[k] for k in classes[keep].tolist()], dtype=np.int64),
            "score": scores[keep],
            "bbox": boxes,
            "area": masks.areas,
            "box_area": boxes[:, 2] * boxes[:, 3],
        }
        return ImageObjects(sample["image_id"], masks, columns)

    def _evaluate(self, shares: list[tuple[list[ImageObjects], list[ImageObjects]]]) -> dict[str, dict[str, float]]:
        """On the main rank, which alone has the shares."""
        predictions = _ordered([image for share, _ in shares for image in share])
        if self.save_predictions:  # before the ground truth is read, which may turn out not to fit
            write_json(_server_format(predictions), self.predictions_path)
        truth = self._true_annotations(predictions, _ordered([image for _, share in shares for image in share]))
        if not truth:
            if self.predictions_path and not self.save_predictions:
                write_json(_server_format(predictions), self.predictions_path)
            where = f"are in {self.predictions_path}" if self.predictions_path else "were not saved"
            logger.warning("No ground truth object in %d images: no AP. The predictions %s.", len(predictions), where)
            return {}
        images = [
            {"id": number, "height": image.masks.size[0], "width": image.masks.size[1]}
            for number, image in enumerate(predictions, 1)
        ]
        return {
            task: average_precision(
                images, self.categories, truth, coco_annotations(predictions, columns, masks=task == "segm"), task
            )
            for task, columns in _TASKS.items()
        }

    def _true_annotations(self, predictions: list[ImageObjects], truth: list[ImageObjects]) -> list[dict]:
        if self.json_file is None:
            return coco_annotations(truth, {name: name for name in TRUTH_COLUMNS}, masks=True)
        sizes = {image.image_id: image.masks.size for image in predictions}
        coco = read_coco(self.json_file)
        if len(coco.images) > len(sizes):
            logger.info("Of the %d images of %s, the %d evaluated ones count.", len(coco.images), coco.path, len(sizes))
        return truth_of_file(coco, self.category_ids.values(), sizes)


def _existing_json_file(name: str) -> str | None:
    path = MetadataCatalog.get(name).get("json_file")
    if path and not Path(path).is_file():
        logger.info("%s, the json_file of %s, does not exist: ground truth is taken from the records.", path, name)
        return None
    return path


def _array(values: torch.Tensor | Sequence | np.ndarray, dtype: torch.dtype) -> np.ndarray:
    return torch.as_tensor(values).detach().to("cpu", dtype).numpy()


def _ordered(images: Sequence[ImageObjects]) -> list[ImageObjects]:
    """By ascending id; of an image that came twice, the first."""
    found: dict[Hashable, ImageObjects] = {}
    for image in sorted(images, key=lambda image: id_order(image.image_id)):
        found.setdefault(image.image_id, image)
    return list(found.values())


def _server_format(predictions: list[ImageObjects]) -> list[dict]:
    columns = {"category_id": "category_id", "score": "score", "bbox": "bbox"}
    entries = coco_annotations(predictions, columns, masks=True)
    for entry in entries:
        del entry["id"]
        entry["image_id"] = predictions[entry["image_id"] - 1].image_id
        entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode("ascii")
    return entries
