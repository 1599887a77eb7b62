"""Ctrl-C and SIGTERM: the first one saves where the run stands, the second ends at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_on_signals(training: Callable[[], bool]) -> Iterator[threading.Event]:
    """An event that is set by the first signal while `training()`; before and after, a signal ends at once."""
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set() or not training():
            raise KeyboardInterrupt
        stop.set()
        # The signal may have come amid a print, and Python's streams refuse to be entered twice.
        os.write(2, b"Stopping: the run is saved after this step. Once more to stop at once.\n")

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python delivers signals to the main thread
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
