"""Work on images that goes on in threads while the model computes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

logger = logging.getLogger(__name__)


class Background:
    """Calls of functions in threads; what they return is handed to `collect` by the caller's own thread.

    They run while the caller waits for a device, or computes without Python's interpreter lock, as torch does. Few
    calls wait at a time, so memory does not grow with the data set.
    """

    def __init__(self, collect: Callable[[Any], None], threads: int = 2):
        """
        Args:
            collect: takes each result, in the order of the calls.
            threads: calls that run at once; four times as many may be unfinished before `submit` waits.
        """
        self.collect, self.limit = collect, 4 * threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="evaluation")
        self._calls: deque[Future] = deque()

    def submit(self, function: Callable, *args: Any) -> None:
        """Have `function(*args)` called soon. An error of an earlier call is raised here or by `finish`."""
        self._calls.append(self._pool.submit(function, *args))
        while self._calls and (self._calls[0].done() or len(self._calls) > self.limit):
            self.collect(self._calls.popleft().result())

    def finish(self) -> None:
        """Wait for every call and collect its result."""
        while self._calls:
            self.collect(self._calls.popleft().result())

    def finish_good(self) -> None:
        """As `finish`, but a call that fails is logged and left out."""
        while self._calls:
            call = self._calls.popleft()
            try:
                self.collect(call.result())
            except Exception as error:
                logger.error("left out: %s", error)

    def cancel(self) -> None:
        """Drop the calls that have not begun, and all results not collected."""
        for call in self._calls:
            call.cancel()
        wait(self._calls)
        self._calls.clear()
