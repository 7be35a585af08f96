"""The meta-architecture for clips (Cheng et al., Mask2Former for Video Instance Segmentation, arXiv:2112.10764)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from mask2former.modeling import postprocess
from mask2former.modeling.maskformer import MaskFormer
from mask2former.modeling.postprocess import Geometry
from mask2former.modeling.targets import clip_targets
from mask2former.modeling.windows import WindowPredictions, WindowTracker
from mask2former.structures import padded_size
from mask2former.utils.errors import UserError

# B batch, T frames, Q queries, K classes, N tracks, h w stride-4 size of the padded batch, H W wanted size


class VideoMaskFormer(MaskFormer):
    """MaskFormer with a frame axis: a query is one object in all frames of a clip.

    Called with a list of dicts, each with ``image``, T frames [C,H,W] of one size, and perhaps ``height`` and ``width``
    of the wanted result, if it is not that of the frames. In training mode each also has ``instances``, T Instances
    with ``gt_classes``, ``gt_masks`` and ``gt_ids``, as `clip_targets` takes them; returns weighted losses by name, and
    T is the same for all clips. In evaluation mode returns one dict per video, ``image_size`` (H, W), ``pred_scores``
    and ``pred_labels`` (N numbers) and ``pred_masks``: N bool tensors [T,H,W] on the CPU. A video that is longer than
    the windows of ``tracker`` is read frame by frame, and its N masks are `TrackMasks`.

    tracker  how long videos are cut into windows, and how many tracks are kept
    parts    as of MaskFormer
    """

    def __init__(self, *, tracker: WindowTracker, **parts):
        super().__init__(**parts)
        self.tracker = tracker

    def forward(self, batched_inputs: list[dict]) -> list[dict] | dict[str, Tensor]:
        if not self.training:
            return [self._video(x) for x in batched_inputs]  # one at a time: lengths differ
        images = self._batch([x["image"] for x in batched_inputs])
        predictions = self._predict(images, every_layer=self.deep_supervision)
        annotated = [x["instances"] for x in batched_inputs]
        return self.criterion(predictions, clip_targets(annotated, images.padded_size, self.device))

    def predict_raw(self, batched_inputs: list[dict]) -> dict[str, Tensor]:
        """``pred_logits`` [B,Q,K+1] and ``pred_masks`` [B,Q,T,h,w], logits at stride 4 of the padded batch."""
        images = self._batch([list(x["image"]) for x in batched_inputs])
        predictions = self._predict(images, every_layer=False)
        return {"pred_logits": predictions.class_logits[-1], "pred_masks": predictions.final_masks()}

    def postprocess(self, raw: dict[str, Tensor], batched_inputs: list[dict]) -> list[dict]:
        """Results as from :meth:`forward`, from raw predictions of these inputs."""
        sizes = [_frame_size(x["image"]) for x in batched_inputs]
        padded = padded_size(sizes, self.size_divisibility)
        results = []
        for logits, masks, size, x in zip(raw["pred_logits"], raw["pred_masks"], sizes, batched_inputs):
            geometry = Geometry(padded, size, _output_size(x, size))
            found = postprocess.tracks(logits, masks, geometry, top_k=self.tracker.top_k)
            results.append(_result(geometry.output, *found))
        return results

    @torch.no_grad()
    def predict_window(self, frames: Sequence[Tensor]) -> WindowPredictions:
        """What `WindowTracker` asks for: the queries of a clip of T frames [C,H,W]."""
        images = self._batch([frames])
        predictions = self._predict(images, every_layer=False)
        return WindowPredictions(
            probability=predictions.class_logits[-1, 0].softmax(-1),
            embedding=predictions.mask_embed[-1, 0],
            mask_logits=predictions.final_masks()[0],
            padded=images.padded_size,
        )

    def _video(self, video: dict) -> dict:
        length = video["length"] if "length" in video else len(video["image"])
        frames = iter(video["image"])
        first = next(frames, None)
        if first is None:
            raise UserError(f"The video {video.get('video_id', '')} has no frames: there is nothing to predict.")
        frames = chain([first], frames)
        if not self.tracker.size or length <= self.tracker.size:
            clip = [{**video, "image": list(frames)}]
            return self.postprocess(self.predict_raw(clip), clip)[0]
        output = _output_size(video, _frame_size([first]))
        found = self.tracker.run(self.predict_window, frames, output)
        scores, labels, masks = ([getattr(track, field) for track in found] for field in ("score", "category", "masks"))
        return _result(output, scores, labels, masks)


def _result(size: tuple[int, int], scores: list[float], labels: list[int], masks: list) -> dict:
    return {"image_size": size, "pred_scores": scores, "pred_labels": labels, "pred_masks": masks}


def _frame_size(frames: Sequence[Tensor]) -> tuple[int, int]:
    return tuple(frames[0].shape[-2:])


def _output_size(video: dict, size: tuple[int, int]) -> tuple[int, int]:
    return int(video.get("height", size[0])), int(video.get("width", size[1]))
