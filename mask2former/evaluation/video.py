"""Video instance segmentation: YouTube-VIS's AP of tracks, AP of frames, identity, and the file for the servers."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from mask2former.data.datasets.ytvis_json import read_ytvis
from mask2former.evaluation.coco_ap import average_precision, track_precision
from mask2former.evaluation.object_evaluator import ObjectEvaluator, as_array, score_array
from mask2former.evaluation.objects import ImageObjects, coco_annotations
from mask2former.evaluation.video_identity import TrackErrors, track_errors, tracking_figures
from mask2former.evaluation.video_tracks import VideoTracks, encode_track, intersections, iou
from mask2former.evaluation.video_truth import mean_area, tracks_of_file, tracks_of_record
from mask2former.utils.errors import UserError

logger = logging.getLogger(__name__)

# N predicted tracks, D of one class, G true ones, T frames, H W size of a frame

_TRACK_COLUMNS = {
    "predicted": ("category_id", "score", "area"),
    "true": ("category_id", "iscrowd", "area"),
}


class VideoInstanceEvaluator(ObjectEvaluator):
    """AP and AR of tracks as YouTube-VIS defines them, AP of the masks in single frames, and figures of tracking.

    Masks are encoded as they come, so memory grows with the run lengths of the tracks only, not with pixels. Ground
    truth comes from a YouTube-VIS file, else from the records' `annotations`, which have no tracks without any mask.
    The predictions file is `ytvis/results.json`, a list of ``{"video_id", "score", "category_id" (the data set's own
    id), "segmentations" (COCO RLE, or null where a mask is empty, of each frame)}``: zipped, what the servers of
    YouTube-VIS and OVIS take.
    """

    predictions_file = "ytvis/results.json"  # results.json beside it would be that of all evaluators' figures
    noun = "videos"
    id_name = "video_id"

    def process(self, inputs: Sequence[dict], outputs: Sequence[dict]) -> None:
        """Encode the predictions of a batch and, where there is no `json_file`, its ground truth.

        Args:
            inputs: with `video_id`, `file_names` [T] and perhaps `annotations`, see
                :func:`mask2former.evaluation.video_truth.tracks_of_record`.
            outputs: with `image_size` (H, W), `pred_scores` [N], `pred_labels` [N], and `pred_masks`, N tracks: bool
                [T,H,W], or TrackMasks.

        Raises:
            UserError: no result, no ground truth, or one of another size or length.
        """
        super().process(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics by task: `segm` of :func:`mask2former.evaluation.coco_ap.track_precision`, `frame_segm` of
        `average_precision` with each frame as an image, `tracking` of
        :func:`mask2former.evaluation.video_identity.tracking_figures`."""
        return super().evaluate()

    def _encode(self, sample: dict, output: dict) -> VideoTracks:
        if "pred_masks" not in output:
            raise UserError(
                f"The model gives no tracks (it gives {sorted(output)}), which the evaluation of videos needs. Set "
                "MODEL.META_ARCHITECTURE to VideoMaskFormer, wrap a model of images into "
                "mask2former.evaluation.FrameByFrame, or name a data set of images in DATASETS.TEST."
            )
        name, size, length = sample["file_names"][0], tuple(output["image_size"]), len(sample["file_names"])
        classes = as_array(output["pred_labels"], torch.int64)
        scores = score_array(output["pred_scores"], f"the video of {name}")
        keep = np.flatnonzero(np.isin(classes, list(self.category_ids)))
        masks = [encode_track(output["pred_masks"][i]) for i in keep]
        for track in masks:
            if track.size != size or len(track.counts) != length:
                found = f"{len(track.counts)} masks of {track.size}"
                raise ValueError(f"{name}: a predicted track has {found}; expected {length} of {size}")
        columns = {
            "category_id": np.array([self.category_ids[k] for k in classes[keep].tolist()], dtype=np.int64),
            "score": scores[keep],
            "area": np.array([mean_area(track.areas) for track in masks], dtype=np.float64),
        }
        return VideoTracks(sample["video_id"], size, length, masks, columns)

    def _true_objects(self, sample: dict, predicted: VideoTracks) -> VideoTracks:
        return tracks_of_record(sample, self.category_ids, predicted.size)

    def _all_truth(self, predictions: list[VideoTracks], truth: list[VideoTracks]) -> list[VideoTracks]:
        if self.json_file is not None:
            file = read_ytvis(self.json_file)
            if len(file.videos) > len(predictions):
                logger.info("Of the %d videos of %s, %d are evaluated.", len(file.videos), file.path, len(predictions))
            videos = {video.video_id: (video.size, video.length) for video in predictions}
            truth = tracks_of_file(file, self.category_ids.values(), videos) if file.has_tracks else []
        return truth if any(video.masks for video in truth) else []

    def _measure(self, predictions: list[VideoTracks], truth: list[VideoTracks]) -> dict[str, dict[str, float]]:
        overlaps: list[np.ndarray] = []
        errors: list[TrackErrors] = []
        for predicted, true in zip(predictions, truth, strict=True):
            shared = intersections(predicted, true)
            overlaps.append(iou(shared.sum(0), predicted.areas.sum(1), true.areas.sum(1)))
            errors += track_errors(predicted, true, shared)
        return {
            "segm": self._track_ap(predictions, truth, overlaps),
            "frame_segm": self._frame_ap(predictions, truth),
            "tracking": tracking_figures(errors),
        }

    def _track_ap(
        self, predictions: list[VideoTracks], truth: list[VideoTracks], overlaps: list[np.ndarray]
    ) -> dict[str, float]:
        """`overlaps`: of each video the IoU of its tracks, float64 [D,G]."""
        found = _as_annotations(predictions, _TRACK_COLUMNS["predicted"])
        wanted = _as_annotations(truth, _TRACK_COLUMNS["true"])
        rows = {track["id"]: (track["image_id"], track["row"]) for track in found}
        columns = {track["id"]: track["row"] for track in wanted}

        def overlap(predicted_ids: Sequence[int], true_ids: Sequence[int]) -> np.ndarray:
            video = rows[predicted_ids[0]][0]
            return overlaps[video - 1][np.ix_([rows[i][1] for i in predicted_ids], [columns[i] for i in true_ids])]

        videos = [{"id": number} for number in range(1, len(predictions) + 1)]
        return track_precision(videos, self.categories, wanted, found, overlap)

    def _frame_ap(self, predictions: list[VideoTracks], truth: list[VideoTracks]) -> dict[str, float]:
        found, wanted = _frames(predictions), _frames(truth)
        images = [
            {"id": number, "height": frame.masks.size[0], "width": frame.masks.size[1]}
            for number, frame in enumerate(found, 1)
        ]
        columns = [{name: name for name in _TRACK_COLUMNS[kind]} for kind in ("true", "predicted")]
        return average_precision(
            images,
            self.categories,
            coco_annotations(wanted, columns[0], masks=True),
            coco_annotations(found, columns[1], masks=True),
        )

    def _server_format(self, predictions: list[VideoTracks]) -> list[dict]:
        return [
            {
                "video_id": video.video_id,
                "score": float(video.columns["score"][i]),
                "category_id": int(video.columns["category_id"][i]),
                "segmentations": [
                    {"size": list(video.size), "counts": counts.decode("ascii")} if area else None
                    for counts, area in zip(track.counts, track.areas)
                ],
            }
            for video in predictions
            for i, track in enumerate(video.masks)
        ]


def _frames(videos: Sequence[VideoTracks]) -> list[ImageObjects]:
    return [video.frame(t) for video in videos for t in range(video.length)]


def _as_annotations(videos: Sequence[VideoTracks], columns: Sequence[str]) -> list[dict]:
    """All tracks as COCO's annotations without masks, with their `row` in the video.

    Returns:
        dicts with `id`, from 1 (0 would stand for no match), `image_id`, the video's number from 1, `row`, `columns`.
    """
    return [
        {"id": number, "image_id": video_number, "row": row, **{c: video.columns[c][row].item() for c in columns}}
        for number, (video_number, row, video) in enumerate(
            ((n, row, video) for n, video in enumerate(videos, 1) for row in range(len(video.masks))), 1
        )
    ]
