"""Videos as evaluation reads them: frame by frame, however many there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from mask2former.data.datasets.checks import read_checked_image
from mask2former.data.datasets.video_records import frame_record

# H, W: size of the files; h, w: size after the transform


class VideoFrames:
    """The frames of a video as a model takes them, read when they are asked for.

    `len`, an index and `for` work as for a list of tensors uint8 [3,h,w]. A loop has the next frames read in threads
    meanwhile, and holds no more than these, whatever the length.

    Args:
        record: of the video, with "file_names" and the "height" and "width" that each frame has.
        prepare: makes the model's input of a picture, uint8 RGB [H,W,3].
    """

    _AHEAD, _THREADS = 4, 2

    def __init__(self, record: Mapping, prepare: Callable[[np.ndarray], torch.Tensor]):
        # objects stay behind: a worker process hands this over
        self.record = {key: value for key, value in record.items() if key != "annotations"}
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.record["file_names"])

    def __getitem__(self, t: int) -> torch.Tensor:
        """Frame `t`; a missing or broken file, or one of another size than the video, is a UserError."""
        return self.prepare(read_checked_image(frame_record(self.record, t)))

    def __iter__(self) -> Iterator[torch.Tensor]:
        with ThreadPoolExecutor(self._THREADS) as pool:
            waiting = deque(pool.submit(self.__getitem__, t) for t in range(min(self._AHEAD, len(self))))
            for t in range(len(self)):
                if t + self._AHEAD < len(self):
                    waiting.append(pool.submit(self.__getitem__, t + self._AHEAD))
                yield waiting.popleft().result()
