"""Instance segmentation: COCO's AP of masks and boxes, and the predictions as a file for COCO's servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from mask2former.data.datasets.coco_json import read_coco
from mask2former.evaluation.coco_ap import average_precision
from mask2former.evaluation.encoding import encode_masks
from mask2former.evaluation.instance_truth import TRUTH_COLUMNS, truth_of_file, truth_of_record
from mask2former.evaluation.object_evaluator import ObjectEvaluator, as_array, score_array
from mask2former.evaluation.objects import ImageObjects, coco_annotations
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# task -> key of COCO's annotations -> column of predictions; masks have their own place
_TASKS = {
    "segm": {"category_id": "category_id", "score": "score", "area": "area"},
    "bbox": {"category_id": "category_id", "score": "score", "area": "box_area", "bbox": "bbox"},
}


class InstanceEvaluator(ObjectEvaluator):
    """AP and AR of masks and of boxes, by IoU, by area and by class, in percent, equal to pycocotools'.

    Masks are encoded as they come, so memory hardly grows with the data set. Ground truth comes from a COCO file, else
    from the records' `annotations`, else from the things of their panoptic maps. The predictions file is
    `coco_instances_results.json`, a list of ``{"image_id", "category_id" (the data set's own id), "segmentation" (COCO
    RLE), "score", "bbox" [x,y,w,h]}``. See :func:`mask2former.evaluation.coco_ap.average_precision`.
    """

    predictions_file = "coco_instances_results.json"
    noun = "images"
    id_name = "image_id"

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
        super().process(inputs, outputs)

    def _encode(self, sample: dict, output: dict) -> ImageObjects:
        instances = output.get("instances")
        if instances is None:
            raise UserError(
                "The model gives no instances, which this evaluation needs. "
                "Set MODEL.MASK_FORMER.TEST.INSTANCE_ON to True."
            )
        classes = as_array(instances.pred_classes, torch.int64)
        scores = score_array(instances.scores, sample["file_name"])
        keep = np.flatnonzero(np.isin(classes, list(self.category_ids)))
        if len(keep) < len(classes):
            instances = instances[torch.from_numpy(keep)]
        masks = encode_masks(instances.pred_masks)
        boxes = masks.boxes
        if instances.has("pred_boxes"):
            boxes = as_array(getattr(instances.pred_boxes, "tensor", instances.pred_boxes), torch.float64)
            boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        columns = {
            "category_id": np.array([self.category_ids[k] for k in classes[keep].tolist()], dtype=np.int64),
            "score": scores[keep],
            "bbox": boxes,
            "area": masks.areas,
            "box_area": boxes[:, 2] * boxes[:, 3],
        }
        return ImageObjects(sample["image_id"], masks, columns)

    def _true_objects(self, sample: dict, predicted: ImageObjects) -> ImageObjects:
        return truth_of_record(sample, self.category_ids, predicted.masks.size)

    def _all_truth(self, predictions: list[ImageObjects], truth: list[ImageObjects]) -> list[dict]:
        if self.json_file is None:
            return coco_annotations(truth, {name: name for name in TRUTH_COLUMNS}, masks=True)
        sizes = {image.image_id: image.masks.size for image in predictions}
        coco = read_coco(self.json_file)
        if len(coco.images) > len(sizes):
            logger.info("Of the %d images of %s, the %d evaluated ones count.", len(coco.images), coco.path, len(sizes))
        return truth_of_file(coco, self.category_ids.values(), sizes)

    def _measure(self, predictions: list[ImageObjects], truth: list[dict]) -> dict[str, dict[str, float]]:
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

    def _server_format(self, predictions: list[ImageObjects]) -> list[dict]:
        columns = {"category_id": "category_id", "score": "score", "bbox": "bbox"}
        entries = coco_annotations(predictions, columns, masks=True)
        for entry in entries:
            del entry["id"]
            entry["image_id"] = predictions[entry["image_id"] - 1].image_id
            entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode("ascii")
        return entries
