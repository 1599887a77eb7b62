"""`python -m imbcil.harness.sweeps.worker`: trains one run of a sweep, or measures how fast it would train.

The order comes as one line on standard input, events go out on standard output; whatever else is printed goes to
standard error. When standard input closes, the parent is gone: the run is saved and ends.
"""

import json
import os
import signal
import sys
import threading
from typing import Any, TextIO

from imbcil.harness.base.errors import ImbcilError
from imbcil.harness.interrupt import stop_on_signals
from imbcil.harness.sweeps.messages import EventView
from imbcil.harness.sweeps.units import Ended, Unit, train_unit

INTERRUPTED = 130


def main() -> int:
    """Read the order, do it, and report; the exit code is as that of `imbcil-bench run`."""
    view = EventView(_own_channel())
    with stop_on_signals(lambda: view.training) as stop:
        content = json.loads(sys.stdin.readline())
        if content["probe_seconds"] is None:
            threading.Thread(target=_stop_without_parent, name="imbcil-parent", daemon=True).start()
        try:
            result = _done(content, view, stop)
        except KeyboardInterrupt:
            result = Ended("interrupted", "its last checkpoint")
        except ImbcilError as error:
            result = Ended("failed", str(error))
    view.ended(result)
    return {"failed": 1, "interrupted": INTERRUPTED}.get(result.status, 0)


def _own_channel() -> TextIO:
    """Standard output for events alone: what learners print goes to standard error from now on."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def _stop_without_parent() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def _done(content: dict[str, Any], view: EventView, stop: threading.Event) -> Ended:
    import torch

    from imbcil.harness.planning import plan_request
    from imbcil.harness.request import RunRequest
    from imbcil.harness.sweeps.probe import measured
    from imbcil.harness.tracking import Tracker, resolve_tracking

    torch.set_num_threads(content["threads"])
    request = RunRequest.model_validate(content["request"])
    store, planned = plan_request(request, view)
    if content["probe_seconds"] is not None:
        view.send("measured", **measured(planned[0], request, content["probe_seconds"], view))
        return Ended("finished")
    run = next((run for run in planned if run.info.run_key == content["run_key"]), None)
    if run is None:
        return Ended("failed", "its settings or data changed while the sweep went on; start the sweep again.")
    store.prepare()
    tracking = resolve_tracking(store, request.tracking_uri, disabled=request.no_tracking)
    tracker = Tracker(tracking, store, view.warning)
    return train_unit(Unit(0, run.info.method, request, run), view, tracker, stop)


if __name__ == "__main__":
    sys.exit(main())
