"""A video in, its tracks out, frame by frame: models of clips by windows, models of images with linked results."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mask2former.config import CfgNode
from mask2former.inference.predictor import Predictor
from mask2former.modeling.image_tracks import FrameLinker
from mask2former.modeling.track_book import TrackBook, TrackChoice
from mask2former.modeling.video import VideoMaskFormer
from mask2former.structures import Track, TrackedObject
from mask2former.utils.errors import UserError

# T frames, H W frame size

MOST_TRACKS = 10_000  # that `VideoPredictor.tracks` can give: a bound for memory, 200 bytes each


@dataclass(frozen=True)
class FrameResult:
    """A frame, uint8 [H,W,3] RGB as it was given, its number from 0, and the objects in it."""

    index: int
    image: np.ndarray
    objects: list[TrackedObject]


class VideoPredictor:
    """Follows objects through a video of any length.

    >>> predictor = VideoPredictor("output/model_final.pth")
    >>> for frame in predictor(frames):
    ...     print(frame.index, [(one.id, one.category, one.score, one.mask.sum()) for one in frame.objects])
    >>> predictor.tracks()

    A model of clips runs the whole video at once, or by windows of TEST.WINDOW_SIZE frames, and follows all objects
    that are good enough, which TEST.DETECTIONS_PER_VIDEO does not limit. A model of images (panoptic, instance,
    semantic) runs each frame; its objects keep their ids.

    Memory is that of a window, or of a frame. For `tracks` run lengths of all masks go to a temporary file, about 1 KB
    per object and frame.

    images  the `Predictor` inside, with ``cfg``, ``labels`` and ``model``
    """

    def __init__(
        self,
        cfg_or_checkpoint: CfgNode | str | Path,
        device: str | torch.device | None = None,
        min_score: float = 0.5,
        keep_tracks: bool = True,
    ):
        """
        Args:
            cfg_or_checkpoint: as for `Predictor`, and device.
            min_score: objects and tracks with a lower score are left out.
            keep_tracks: False: there are no `tracks`, and no file that grows, as for a camera that never ends.
        """
        self.images = Predictor(cfg_or_checkpoint, device)
        self.min_score, self.keep_tracks = min_score, keep_tracks
        self._book: TrackBook | None = None

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[FrameResult]:
        """The results of frames uint8 [H,W,3] RGB, all of one size, which are read as they are needed.

        Results of frames come with their window, so up to TEST.WINDOW_SIZE frames are read ahead.

        Raises:
            UserError: there is no frame, one is not like the first, or there is no room for the temporary file. What
                ``frames`` raises passes through, after the results of the frames before.
        """
        pending: deque[np.ndarray] = deque()
        source = _Source(frames, pending, self.images)
        inputs = iter(source)
        first = next(inputs, None)
        if first is None:
            raise source.failure or UserError("The video has no frames: there is nothing to predict.")
        choice = TrackChoice(MOST_TRACKS, self.min_score, one_class=True)
        self._book = TrackBook(pending[0].shape[:2], choice, self.keep_tracks)
        for index, objects in enumerate(self._stream(chain([first], inputs))):
            kept = [one for one in objects if one.score >= self.min_score]
            yield FrameResult(index, pending.popleft(), kept)
        if source.failure is not None:
            raise source.failure

    def tracks(self) -> list[Track]:
        """The tracks of the last video, or of what has been read of it, the best first; at most `MOST_TRACKS`.

        Each is of its best class, as in the frames, and reads its masks from the temporary file when asked for them.
        """
        if not self.keep_tracks:
            raise ValueError("keep_tracks is False, so there are no tracks: leave it out to have them.")
        return [] if self._book is None else self._book.tracks()

    def _stream(self, inputs: Iterator[dict]) -> Iterator[list[TrackedObject]]:
        model = self.images.model
        if isinstance(model, VideoMaskFormer):
            return model.tracker.stream(model.predict_window, (x["image"] for x in inputs), self._book)
        results = (self._image_result(x) for x in inputs)
        return FrameLinker(self.images.labels.num_classes, self.min_score).stream(results, self._book)

    @torch.no_grad()
    def _image_result(self, x: dict) -> dict[str, Tensor]:
        return self.images.model([x])[0]


class _Source:
    """Model inputs of frames, which wait in ``pending``; an error ends them and is kept as ``failure``."""

    def __init__(self, frames: Iterable[np.ndarray], pending: deque[np.ndarray], images: Predictor):
        self._frames, self._pending, self._images = frames, pending, images
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[dict]:
        shape = None
        try:
            for index, frame in enumerate(self._frames):
                x = self._images.model_input(frame)
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise UserError(
                        f"Frame {index} has {frame.shape[1]}x{frame.shape[0]} pixels, the first one "
                        f"{shape[1]}x{shape[0]}: all frames of a video have one size."
                    )
                self._pending.append(frame)
                yield x
        except Exception as error:  # whatever it is, the frames before it are good
            self.failure = error
