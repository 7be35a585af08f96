"""Run lengths of a video's masks in a temporary file, so that memory does not grow with the video."""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from functools import cached_property

from mask2former.utils.errors import UserError

# H W image size

_HEADER = struct.Struct("<qqq")  # place of the track's record before, or -1; frame; bytes of the run lengths
_NONE = -1


class RleSpool:
    """A file of RLEs, each of one track in one frame, of which memory holds nothing.

    A record says where its track's record before is, so the place of a track's newest record leads to all of them.
    The file has no name, and is gone when neither the spool nor a track that reads from it is held.
    """

    def __init__(self) -> None:
        # unbuffered: what could not be written is known at once, and never written later
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (open as long as the spool is held)
        weakref.finalize(self, self._file.close)
        self._end = 0
        self._lock = threading.Lock()  # tracks may be read while the video runs

    def append(self, rle: dict, frame: int, before: int | None) -> int:
        """Keep the compressed COCO RLE of a track in a frame; returns the place of the record.

        Args:
            rle: what is kept.
            frame: a later one than that of the record before.
            before: place of the track's record before; None for the first.

        Raises:
            UserError: there is no room for it.
        """
        counts = rle["counts"].encode("ascii")
        record = _HEADER.pack(_NONE if before is None else before, frame, len(counts)) + counts
        with self._lock:
            self._file.seek(self._end)
            try:
                if self._file.write(record) < len(record):
                    raise OSError("no space left")
            except OSError as error:
                raise UserError(
                    f"The masks of tracks cannot be kept in a temporary file in {tempfile.gettempdir()} "
                    f"({error.strerror or error}). Make room there, or name another folder in the environment "
                    "variable TMPDIR."
                ) from error
            place, self._end = self._end, self._end + len(record)
        return place

    def counts(self, place: int) -> str:
        """The run lengths of a record, as in COCO's compressed RLE."""
        _, _, length = self._header(place)
        return self._read(place + _HEADER.size, length).decode("ascii")

    def before(self, place: int) -> tuple[int | None, int]:
        """Of a record the place of the track's record before, None for the first, and the frame."""
        before, frame, _ = self._header(place)
        return None if before == _NONE else before, frame

    def _header(self, place: int) -> tuple[int, int, int]:
        return _HEADER.unpack(self._read(place, _HEADER.size))

    def _read(self, place: int, length: int) -> bytes:
        if hasattr(os, "pread"):  # leaves the file's position alone, which forked processes share
            return os.pread(self._file.fileno(), length, place)
        with self._lock:
            self._file.seek(place)
            return self._file.read(length)


class SpooledRles(Mapping[int, dict]):
    """The COCO RLEs of one track by frame number, read from the file when they are asked for.

    spool       the file
    newest      place of the track's last record; None: it has none
    image_size  (H, W)
    """

    def __init__(self, spool: RleSpool, newest: int | None, image_size: tuple[int, int]):
        self._spool, self._newest, self._size = spool, newest, image_size

    @cached_property
    def _index(self) -> tuple[array, array]:
        """Frames, ascending, and places of their records: 16 bytes per frame with the object, once it is looked at."""
        frames, places, place = array("q"), array("q"), self._newest
        while place is not None:
            places.append(place)
            place, frame = self._spool.before(place)
            frames.append(frame)
        frames.reverse()
        places.reverse()
        return frames, places

    def __getitem__(self, frame: int) -> dict:
        frames, places = self._index
        row = bisect_left(frames, frame)
        if row == len(frames) or frames[row] != frame:
            raise KeyError(frame)
        return {"size": list(self._size), "counts": self._spool.counts(places[row])}

    def __iter__(self) -> Iterator[int]:
        return iter(self._index[0])

    def __len__(self) -> int:
        return len(self._index[0])

    def __reduce__(self) -> tuple:
        """A copy, and what is pickled, holds the RLEs themselves."""
        return dict, (dict(self),)
