"""Records of a large data set in one block of memory, which worker processes share."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np


class PackedRecords(Sequence):
    """A list of records as bytes in one array; a record is unpacked, anew each time, when it is asked for.

    Python counts references inside its objects, so a forked process that only reads a list of dicts ends up with a
    copy of it. An array is shared for good, and takes a fifth of the memory.

    Args:
        records: dicts of anything that can be pickled; packed ones are taken over as they are.
    """

    def __init__(self, records: Sequence[dict]):
        if isinstance(records, PackedRecords):
            self._data, self._ends = records._data, records._ends
            return
        packed = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._data = np.frombuffer(b"".join(packed), np.uint8)
        self._ends = np.cumsum([0, *map(len, packed)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> dict:
        place = range(len(self))[index]  # an index out of range raises
        # bytes of this process, never of a file
        return pickle.loads(self._data[self._ends[place] : self._ends[place + 1]])
