"""Work beside the main thread: items made ahead of their use, and items worked off after it, in bounded memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

_END = object()
_PATIENCE = 0.1  # seconds between two looks at whether anybody still wants the items
_FAREWELL = 3.0  # seconds that a source gets to come back from the item it is making


class ReadAhead(Generic[Item]):
    """Iterates over `items` while a thread makes the next ones, at most `size` of them.

    An error of `items` is raised where it happened, after the items before it. `close()` ends the thread early.
    """

    def __init__(self, items: Iterable[Item], size: int):
        self._error: Exception | None = None
        self._made: queue.Queue = queue.Queue(size)
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._make, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        while (item := self._made.get()) is not _END:
            yield item
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread; nothing can be read after it. Where the source blocks, as a camera may, it is left behind."""
        self._unwanted.set()
        self._thread.join(_FAREWELL)

    def _make(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                if not self._offer(item):
                    return
        except Exception as error:
            self._error = error
        self._offer(_END)

    def _offer(self, item: object) -> bool:
        while not self._unwanted.is_set():
            try:
                self._made.put(item, timeout=_PATIENCE)
                return True
            except queue.Full:
                pass
        return False


class WriteBehind(Generic[Item]):
    """Calls `work` for each item that is put, in order, in one thread, which may lag by `size` items.

    The first error of `work` is raised by the next `put`, or by `close`; items after it are dropped.
    """

    def __init__(self, work: Callable[[Item], None], size: int):
        self._work = work
        self._error: Exception | None = None
        self._waiting: queue.Queue = queue.Queue(size)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Hand an item over; waits while the thread lags by too many."""
        self._raise()
        self._waiting.put(item)

    def close(self) -> None:
        """Wait until all is worked off."""
        if self._thread.is_alive():
            self._waiting.put(_END)
            self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self) -> None:
        failed = False
        while (item := self._waiting.get()) is not _END:
            if failed:
                continue  # taken, so that nobody waits for room
            try:
                self._work(item)
            except Exception as error:
                self._error, failed = error, True
