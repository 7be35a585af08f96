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
from mask2former.inference.image_tracks import FrameLinker
from mask2former.inference.predictor import Predictor
from mask2former.modeling.track_book import TrackBook
from mask2former.modeling.video import VideoMaskFormer
from mask2former.structures import Track, TrackedObject
from mask2former.utils.errors import UserError

# T frames, H W frame size

_TRACKS_OF_IMAGES = 1000  # kept in the summary of an image model's video, which no key limits


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

    A model of clips runs the whole video at once, or by windows of TEST.WINDOW_SIZE frames; of what is done only run
    lengths of masks are kept, about 1 KB per object and frame. A model of images (panoptic, instance, semantic) runs
    each frame; its objects keep their ids.

    images  the `Predictor` inside, with ``cfg``, ``labels`` and ``model``
    """

    def __init__(
        self,
        cfg_or_checkpoint: CfgNode | str | Path,
        device: str | torch.device | None = None,
        min_score: float = 0.5,
    ):
        """
        Args:
            cfg_or_checkpoint: as for `Predictor`, and device.
            min_score: objects and tracks with a lower score are left out.
        """
        self.images = Predictor(cfg_or_checkpoint, device)
        self.min_score = min_score
        self._book: TrackBook | None = None

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[FrameResult]:
        """The results of frames uint8 [H,W,3] RGB, all of one size, which are read as they are needed.

        Results of frames come with their window, so up to TEST.WINDOW_SIZE frames are read ahead.

        Raises:
            UserError: there is no frame, or one is not like the first. What ``frames`` raises passes through, after the
                results of the frames before.
        """
        pending: deque[np.ndarray] = deque()
        source = _Source(frames, pending, self.images)
        inputs = iter(source)
        first = next(inputs, None)
        if first is None:
            raise source.failure or UserError("The video has no frames: there is nothing to predict.")
        self._book = TrackBook(pending[0].shape[:2], self._tracks_kept())
        for index, objects in enumerate(self._stream(chain([first], inputs))):
            kept = [one for one in objects if one.score >= self.min_score]
            yield FrameResult(index, pending.popleft(), kept)
        if source.failure is not None:
            raise source.failure

    def tracks(self) -> list[Track]:
        """The tracks of the last video, or of what has been read of it, the best first."""
        return [] if self._book is None else [t for t in self._book.tracks() if t.score >= self.min_score]

    def _tracks_kept(self) -> int:
        model = self.images.model
        return model.tracker.top_k if isinstance(model, VideoMaskFormer) else _TRACKS_OF_IMAGES

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
