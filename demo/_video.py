"""demo.py for videos: frames are read, predicted and drawn side by side, and what is finished stays finished."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mask2former.inference import FrameResult, VideoPredictor
from mask2former.inference.pyav import import_av
from mask2former.inference.track_file import write_tracks
from mask2former.inference.video_sink import VIDEO_SUFFIX, FrameFolderSink, VideoFileSink, make_folder
from mask2former.inference.video_source import IMAGE_SUFFIXES, Frame, ImageFrames, VideoSource, open_source
from mask2former.structures.labels import LabelSet
from mask2former.utils.background import ReadAhead, WriteBehind
from mask2former.utils.errors import UserError
from mask2former.visualization.video import FramePainter, id_map

_QUEUE = 4  # frames that wait for the model, and for the pen
_LONG = 100  # frames; published: about as many as 32 GB hold at once with Swin-L
_OTHER_VIDEOS = {".avi", ".gif", ".m4v", ".mkv", ".mov", ".mpg", ".webm", ".wmv"}


def run_video(args: argparse.Namespace, make_predictor: Callable[[], VideoPredictor]) -> int:
    """Draw the video of `--video-input`; returns 1 if only a part of it could be done.

    Args:
        args: of demo.py.
        make_predictor: called when the input and the outputs are known to be good.

    Raises:
        UserError: not one frame could be done.
    """
    source = open_source(args.video_input, args.frame_rate)
    check_outputs(args, source)
    if source.note:
        print(source.note)
    predictor = make_predictor()
    check_length(predictor, source)
    recorder = Recorder(args, source.rate, predictor.images.labels)
    job = Job(source, predictor, recorder)
    try:
        problem = job.run()
    finally:  # whatever ended it
        with undisturbed():
            keep(args, job)
    if problem and not recorder.done:
        raise UserError(problem)
    if problem:
        print(f"error: {problem} What was done before is kept: {recorder.done} frames.", file=sys.stderr)
    return 1 if problem else 0


def keep(args: argparse.Namespace, job: Job) -> None:
    """Finish the files of the frames that are done, and say what there is."""
    try:
        job.close()
    finally:
        if args.save_tracks and job.recorder.done:
            labels = job.predictor.images.labels
            count = write_tracks(Path(args.save_tracks), job.predictor.tracks(), labels, job.recorder.done)
            print(f"Tracks written to {args.save_tracks}: {count}.")
    if job.recorder.done:
        print(job.summary(args.output))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, Ctrl-C is not heard: a second one would tear what the first one has asked to be kept."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def check_outputs(args: argparse.Namespace, source: VideoSource) -> None:
    """Refuse outputs that cannot be written, or that would overwrite the input."""
    output, suffix = Path(args.output), Path(args.output).suffix.lower()
    if suffix in _OTHER_VIDEOS | IMAGE_SUFFIXES:
        raise UserError(f"--output {output}: a video is written as {VIDEO_SUFFIX}. Name such a file, or a folder.")
    is_file = suffix == VIDEO_SUFFIX
    if is_file:
        import_av(f"Writing {output}")
    folders = [output.parent if is_file else output]
    folders += [Path(args.save_tracks).parent] if args.save_tracks else []
    folders += [Path(args.save_masks)] if args.save_masks else []
    for folder in folders:
        make_folder(folder)
    if is_file == output.is_dir() and output.exists():
        expected = "a folder of that name is in the way" if is_file else f"a video is written as {VIDEO_SUFFIX}"
        raise UserError(f"--output {output}: {expected}. Choose another name.")
    files = source.files if isinstance(source, ImageFrames) else [Path(source.path)]
    inputs = {file.resolve() for file in files} | (
        {file.resolve().parent for file in files} if len(files) > 1 else set()
    )
    for flag, text in (("--output", args.output), ("--save-masks", args.save_masks)):
        if text and Path(text).resolve() in inputs:
            raise UserError(f"{flag} {text} would overwrite the input. Choose another place.")


def check_length(predictor: VideoPredictor, source: VideoSource) -> None:
    """Say what happens to a long video, and refuse an endless one, where the model wants all frames at once."""
    cfg = predictor.images.cfg
    if cfg.MODEL.META_ARCHITECTURE != "VideoMaskFormer" or cfg.TEST.WINDOW_SIZE:
        return
    remedy = "TEST.WINDOW_SIZE 8 (after --opts) takes 8 at a time."
    if source.live:
        raise UserError(f"The recipe takes all frames of a video at once, and a camera has no last one. {remedy}")
    if source.length is None or source.length > _LONG:
        print(f"The recipe takes all {source.length or ''} frames at once, in memory that grows with them. {remedy}")


class Recorder:
    """Drawings and id maps of frames, kept as they come. It is called in a thread of its own; `done` counts."""

    def __init__(self, args: argparse.Namespace, rate: float, labels: LabelSet):
        self.done = 0
        self._painter = FramePainter(labels)
        output = Path(args.output)
        is_file = output.suffix.lower() == VIDEO_SUFFIX
        self._sink = VideoFileSink(output, rate) if is_file else FrameFolderSink(output)
        self._masks = FrameFolderSink(Path(args.save_masks)) if args.save_masks else None

    def __call__(self, item: tuple[Frame, FrameResult]) -> None:
        frame, result = item
        if self._masks:
            self._masks.write(id_map(result.objects, frame.pixels.shape[:2]), frame.seconds, frame.name)
        self._sink.write(self._painter.draw(frame.pixels, result.objects), frame.seconds, frame.name)
        self.done += 1

    def close(self) -> None:
        """Finish the files."""
        self._sink.close()


class Job:
    """The frames' way from the source through the model to the recorder, with a progress bar."""

    def __init__(self, source: VideoSource, predictor: VideoPredictor, recorder: Recorder):
        self.source, self.predictor, self.recorder = source, predictor, recorder
        self._ahead: ReadAhead[Frame] = ReadAhead(source, _QUEUE)
        self._behind: WriteBehind[tuple[Frame, FrameResult]] = WriteBehind(recorder, _QUEUE)
        self._waiting: deque[Frame] = deque()  # frames that the model has, and has not answered
        self._start = time.monotonic()
        self._seconds = 0.0

    def run(self) -> str:
        """Work through the video; returns why it ended early, "" if it did not."""
        try:
            with tqdm(total=self.source.length, desc="drawing", unit="frame") as bar:
                for count, result in enumerate(self.predictor(self._pixels()), start=1):
                    self._behind.put((self._waiting.popleft(), result))
                    bar.set_postfix_str(f"{self._speed(count):.2f} × real time", refresh=False)
                    bar.update()
            self._behind.close()
        except KeyboardInterrupt:
            return "" if self.source.live else "Stopped by Ctrl-C."  # a camera's video ends in no other way
        except UserError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """End the threads, when what they hold is written, and finish the files."""
        self._ahead.close()
        try:
            self._behind.close()
        finally:
            self.recorder.close()
            self._seconds = time.monotonic() - self._start

    def summary(self, output: str) -> str:
        """What was done and how fast."""
        done, total = self.recorder.done, self.source.length
        rate = done / self._seconds
        return (
            f"{done}{f' of {total}' if total else ''} frames drawn to {output}: {rate:.1f} frames per second, "
            f"{rate / self.source.rate:.2f} × real time ({self.source.rate:g} frames per second)."
        )

    def _pixels(self) -> Iterator[np.ndarray]:
        for frame in self._ahead:
            self._waiting.append(frame)
            yield frame.pixels

    def _speed(self, count: int) -> float:
        """Seconds of video done in a second."""
        return count / (time.monotonic() - self._start) / self.source.rate
