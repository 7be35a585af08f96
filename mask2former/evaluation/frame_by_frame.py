"""Image models evaluated on videos: each frame on its own, objects linked from frame to frame."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from mask2former.modeling.image_tracks import FrameLinker
from mask2former.modeling.track_book import TrackBook, TrackChoice
from mask2former.utils.errors import UserError

# T frames, N tracks, H W size of the result

MIN_SCORE = 0.05  # of a linked instance: hundreds that are weaker would be compared with each other in every frame


class FrameByFrame(nn.Module):
    """A model of videos made of one of images, in memory that does not grow with pixels."""

    def __init__(self, model: nn.Module, num_classes: int, top_k: int):
        """
        Args:
            model: list[dict] -> list[dict] with `instances`, at the asked `height` and `width`.
            num_classes: K.
            top_k: (track, class) pairs in the result (TEST.DETECTIONS_PER_VIDEO).
        """
        super().__init__()
        self.model, self.top_k = model, top_k
        self.linker = FrameLinker(num_classes, MIN_SCORE)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """``{"image_size": (H, W), "pred_scores", "pred_labels", "pred_masks"}`` for each video, as VideoMaskFormer
        gives them; the masks are N `TrackMasks`.

        Args:
            batched_inputs: with `image`, an iterable of T frames [C,h,w], and `height` and `width` of the result.

        Raises:
            UserError: the model gives no instances.
        """
        return [self._video(video) for video in batched_inputs]

    def _video(self, video: dict) -> dict:
        size = int(video["height"]), int(video["width"])
        book = TrackBook(size, TrackChoice(self.top_k))
        for _ in self.linker.stream(self._results(video, size), book):
            pass  # the book has it
        tracks = book.tracks()
        return {
            "image_size": size,
            "pred_scores": [track.score for track in tracks],
            "pred_labels": [track.category for track in tracks],
            "pred_masks": [track.masks for track in tracks],
        }

    def _results(self, video: dict, size: tuple[int, int]) -> Iterator[dict]:
        for frame in video["image"]:
            (result,) = self.model([{"image": frame, "height": size[0], "width": size[1]}])
            if result.get("instances") is None:
                raise UserError(
                    "The model gives no instances, from which the tracks of a video are made. "
                    "Set MODEL.MASK_FORMER.TEST.INSTANCE_ON to True."
                )
            yield {"instances": result["instances"]}  # of a panoptic model, too: its segments have no scores
