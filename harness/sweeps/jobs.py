"""One run in a process of its own: started, listened to, asked to stop, and never left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from queue import Queue
from typing import Any

from imbcil.harness.request import RunRequest
from imbcil.harness.sweeps.messages import order

STOP_SECONDS = 30.0  # a step, a checkpoint and a delivery to MLflow
LAST_LINES = 40  # of what a process printed, kept for the case that it dies

Event = dict[str, Any]


class Job:
    """A child process of the same interpreter. Events of all jobs come through one queue as (job, event).

    The last one is {"event": "exited"}; `printed` holds what the process wrote to its standard error.
    """

    def __init__(
        self, request: RunRequest, run_key: str, threads: int, queue: "Queue[tuple[Job, Event]]",
        probe_seconds: float | None = None,
    ) -> None:  # fmt: skip
        self.device = request.device
        self.printed: deque[str] = deque(maxlen=LAST_LINES)
        self._queue = queue
        self._process = subprocess.Popen(
            [sys.executable, "-m", "imbcil.harness.sweeps.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which asks its jobs to stop
        )
        self._say(order(request, run_key, threads, probe_seconds))
        readers = [threading.Thread(target=read, daemon=True) for read in (self._listen, self._keep_printed)]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._announce_end, args=(readers,), daemon=True).start()

    def go(self) -> None:
        """Tell a measurement that all others are ready too."""
        self._say("go\n")

    def ask_to_stop(self) -> None:
        """The first time: save and end. The second time: end at once."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Make sure that the process and all that it started are gone; the exit code."""
        with suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # a process that is gone says so itself
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                event = None
            if isinstance(event, dict) and "event" in event:
                self._queue.put((self, event))
            else:
                self.printed.append(line.rstrip())

    def _keep_printed(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.printed.append(line.rstrip())
            self._queue.put((self, {"event": "printed", "text": line.rstrip()}))

    def _announce_end(self, readers: list[threading.Thread]) -> None:
        for reader in readers:
            reader.join()
        self._process.wait()
        self._queue.put((self, {"event": "exited"}))
