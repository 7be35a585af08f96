"""Per-pixel classification: the baselines that MaskFormer is compared with, and the model around them.

Cheng et al., MaskFormer, NeurIPS 2021, sec. 4.1 (PerPixelBaseline, PerPixelBaseline+).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.modeling.heads import MaskFormerHead
from mask2former.modeling.image_model import ImageModel
from mask2former.modeling.layers.conv import init_msra
from mask2former.modeling.postprocess import Geometry
from mask2former.utils import comm
from mask2former.utils.errors import UserError

# L layers, B batch, K classes, h w map size at the head's stride, H W size of the padded images


class PerPixelBaselineHead(nn.Module):
    """Backbone maps -> class logits [1,B,K,h,w], by a 1x1 convolution of the mask features."""

    def __init__(self, pixel_decoder: nn.Module, num_classes: int):
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = init_msra(nn.Conv2d(pixel_decoder.mask_channels, num_classes, 1))

    def forward(self, maps: dict[str, Tensor], every_layer: bool) -> Tensor:
        """``every_layer`` changes nothing: there is one."""
        mask_features, _ = self.pixel_decoder(maps)
        return self.predictor(mask_features)[None]


class PerPixelBaselinePlusHead(MaskFormerHead):
    """Backbone maps -> class logits [L,B,K,h,w] of every decoder layer: the k-th query's mask is class k's."""

    def forward(self, maps: dict[str, Tensor], every_layer: bool) -> Tensor:
        """``every_layer`` keeps auxiliary predictions, else L = 1."""
        return super().forward(maps, 1, every_layer).masks()[:, :, :, 0]


class SemanticSegmentor(ImageModel):
    """Semantic results alone, classified pixel by pixel; called as MaskFormer is.

    In training mode each input has ``sem_seg`` [h,w], class ids, and the result is ``loss_sem_seg``, with ``_0``,
    ``_1`` ... of earlier decoder layers. In evaluation mode the result is ``sem_seg`` [K,H,W], logits.

    stride        of the head's logits
    ignore_label  id of pixels without label
    loss_weight   weight of the cross-entropy, a mean over the labelled pixels of all ranks
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        deep_supervision: bool,
        stride: int,
        ignore_label: int,
        loss_weight: float,
    ):
        super().__init__(pixel_mean, pixel_std, size_divisibility)
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.deep_supervision = deep_supervision
        self.stride, self.ignore_label, self.loss_weight = stride, ignore_label, loss_weight

    def forward(self, batched_inputs: list[dict]) -> list[dict] | dict[str, Tensor]:
        if not self.training:
            return self.postprocess(self.predict_raw(batched_inputs), batched_inputs)
        if any("sem_seg" not in x for x in batched_inputs):
            raise UserError(
                "SemanticSegmentor learns from semantic maps, but INPUT.DATASET_MAPPER_NAME gives none: set it to "
                "mask_former_semantic."
            )
        logits = self._predict(batched_inputs, self.deep_supervision)
        labels = self._labels([x["sem_seg"] for x in batched_inputs], self._full_size(logits))
        count = comm.mean((labels != self.ignore_label).sum().to(torch.float32)).clamp(min=1)
        suffixes = [*(f"_{layer}" for layer in range(len(logits) - 1)), ""]
        return {f"loss_sem_seg{suffix}": self._loss(layer, labels, count) for suffix, layer in zip(suffixes, logits)}

    def predict_raw(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """``sem_seg`` [B,K,h,w], logits at the head's stride of the padded batch."""
        return {"sem_seg": self._predict(batched_inputs, every_layer=False)[-1]}

    def postprocess(self, raw: dict[str, Tensor], batched_inputs: list[dict]) -> list[dict]:
        """Results as from :meth:`forward`, from raw predictions of these inputs."""
        padded, results = self._full_size(raw["sem_seg"]), []
        for logits, x in zip(raw["sem_seg"], batched_inputs):
            size = tuple(x["image"].shape[-2:])
            output = (int(x.get("height", size[0])), int(x.get("width", size[1])))
            results.append({"sem_seg": Geometry(padded, size, output).to_output(logits)})
        return results

    def _predict(self, batched_inputs: list[dict], every_layer: bool) -> Tensor:
        """Class logits [L,B,K,h,w]."""
        images = self._batch([[x["image"]] for x in batched_inputs])
        return self.sem_seg_head(self.backbone(images.tensor[:, 0]), every_layer)

    def _full_size(self, logits: Tensor) -> tuple[int, int]:
        """Size of the logits at stride 1; up to a stride larger than the padded images."""
        return logits.shape[-2] * self.stride, logits.shape[-1] * self.stride

    def _labels(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Class ids int64 [B,*size], padded right and below with the ignored label."""
        labels = torch.full((len(maps), *size), self.ignore_label, dtype=torch.int64, device=self.device)
        for slot, given in zip(labels, maps):
            slot[: given.shape[0], : given.shape[1]] = given.to(self.device, non_blocking=True)
        return labels

    def _loss(self, logits: Tensor, labels: Tensor, count: Tensor) -> Tensor:
        precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
        resized = F.interpolate(precise, size=labels.shape[1:], mode="bilinear", align_corners=False)
        total = F.cross_entropy(resized, labels, ignore_index=self.ignore_label, reduction="sum")
        return self.loss_weight * total / count
