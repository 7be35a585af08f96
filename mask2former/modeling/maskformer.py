"""The meta-architecture: images in, losses or segmentations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mask2former.modeling import postprocess
from mask2former.modeling.criterion import SetCriterion
from mask2former.modeling.image_model import ImageModel
from mask2former.modeling.resizing import Geometry
from mask2former.modeling.targets import image_targets
from mask2former.modeling.transformer_decoder.output import QueryPredictions
from mask2former.structures import ImageBatch, Instances, padded_size

# B batch, T frames (1 for images), Q queries, K classes, h w stride-4 size of the padded batch


@dataclass(frozen=True)
class InferenceSettings:
    """Which results to give, and their thresholds (MODEL.MASK_FORMER.TEST.*, TEST.DETECTIONS_PER_IMAGE)."""

    semantic: bool
    panoptic: bool
    instance: bool
    score_threshold: float
    overlap_threshold: float
    fill: bool
    top_k: int
    resize_first: bool


class MaskFormer(ImageModel):
    """Mask classification (Cheng et al., NeurIPS 2021 and CVPR 2022) for semantic, panoptic and instance results.

    Called with a list of dicts, each with ``image`` [C,H,W] (uint8 or float, not normalised) and, for the result,
    ``height`` and ``width`` (default: the image's own). In training mode each also has ``instances`` with
    ``gt_classes`` [N] and ``gt_masks`` [N,H,W]; returns weighted losses by name. In evaluation mode returns one
    dict per image with ``sem_seg`` [K,H,W], ``panoptic_seg`` (ids [H,W] int32, segments) and ``instances``, as
    enabled.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: SetCriterion,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        deep_supervision: bool,
        thing_ids: Sequence[int],
        inference: InferenceSettings,
    ):
        super().__init__(pixel_mean, pixel_std, size_divisibility)
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        self.deep_supervision = deep_supervision
        self.thing_ids = frozenset(thing_ids)
        self.inference = inference

    def forward(self, batched_inputs: list[dict]) -> list[dict] | dict[str, Tensor]:
        if not self.training:
            return self.postprocess(self.predict_raw(batched_inputs), batched_inputs)
        images = self._batch([[x["image"]] for x in batched_inputs])
        predictions = self._predict(images, every_layer=self.deep_supervision)
        annotated: list[Instances] = [x["instances"] for x in batched_inputs]
        return self.criterion(predictions, image_targets(annotated, images.padded_size, self.device))

    def predict_raw(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """``pred_logits`` [B,Q,K+1] and ``pred_masks`` [B,Q,h,w], logits at stride 4 of the padded batch."""
        images = self._batch([[x["image"]] for x in batched_inputs])
        predictions = self._predict(images, every_layer=False)
        return {"pred_logits": predictions.class_logits[-1], "pred_masks": predictions.final_masks()[:, :, 0]}

    def postprocess(self, raw: dict[str, Tensor], batched_inputs: list[dict]) -> list[dict]:
        """Results as from :meth:`forward`, from raw predictions of these inputs."""
        sizes = [tuple(x["image"].shape[-2:]) for x in batched_inputs]
        padded = padded_size(sizes, self.size_divisibility)
        results = []
        for logits, masks, size, x in zip(raw["pred_logits"], raw["pred_masks"], sizes, batched_inputs):
            output = (int(x.get("height", size[0])), int(x.get("width", size[1])))
            results.append(self._results(logits, masks, Geometry(padded, size, output)))
        return results

    def _results(self, logits: Tensor, masks: Tensor, geometry: Geometry) -> dict:
        wanted, result = self.inference, {}
        if wanted.semantic:
            result["sem_seg"] = postprocess.semantic(logits, masks, geometry, wanted.resize_first)
        if wanted.panoptic:
            result["panoptic_seg"] = postprocess.panoptic(
                logits,
                masks,
                geometry,
                thing_ids=self.thing_ids,
                score_threshold=wanted.score_threshold,
                overlap_threshold=wanted.overlap_threshold,
                fill=wanted.fill,
            )
        if wanted.instance:
            only = self.thing_ids if wanted.panoptic else None
            result["instances"] = postprocess.instances(logits, masks, geometry, top_k=wanted.top_k, classes=only)
        return result

    def _predict(self, images: ImageBatch, every_layer: bool) -> QueryPredictions:
        maps = self.backbone(images.tensor.flatten(0, 1))
        return self.sem_seg_head(maps, frames=images.tensor.shape[1], every_layer=every_layer)
