"""Ctrl-C and SIGTERM as a wish to stop after the current update, so that the run can be saved whole."""

from __future__ import annotations

import logging
import signal
import threading

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what schedulers and torch's launcher send


class StopRequest:
    """While entered, the first signal only sets `requested`; a second Ctrl-C interrupts at once where it comes from
    the keyboard of a single process.

    A launcher repeats the signal to its workers, which therefore take one Ctrl-C twice: `patient` ignores repeats.
    """

    def __init__(self, patient: bool = False):
        self.patient = patient
        self.requested = False
        self._former: dict = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python sets handlers nowhere else
            self._former = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _note(self, number: int, frame) -> None:
        if self.requested and number == signal.SIGINT and not self.patient:
            raise KeyboardInterrupt
        if not self.requested:
            logger.warning("%s: stopping after this update", signal.Signals(number).name)
        self.requested = True
