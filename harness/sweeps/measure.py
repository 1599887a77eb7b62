"""How many runs to train at once: measured for a few seconds with the sweep's first run, not guessed."""

import os
import time
from queue import Empty, Queue

import torch

from imbcil.harness.sweeps.jobs import Event, Job
from imbcil.harness.sweeps.units import Unit
from imbcil.harness.view import RunView

SECONDS = 3.0  # of training in each measurement
PATIENCE = 120.0  # seconds for all processes of a measurement to get ready, and as long again for their steps
MOST_ON_GPU = 8
WORTHWHILE = 1.03  # more processes must train so many times as many images


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(jobs: int) -> int:
    """CPU threads of each of `jobs` processes, which share the cores (or what OMP_NUM_THREADS allows)."""
    return max(1, min(cores() // jobs, torch.get_num_threads()))


def choose_jobs(units: list[Unit], view: RunView) -> int:
    """Double the number of processes while they train more images together; the log shows each measurement."""
    kind = units[0].run.device.type if units else "cpu"
    most = min(len(units), MOST_ON_GPU if kind == "cuda" else cores(), cores())
    if most < 2 or kind == "mps":
        return 1
    view.message(f"Measuring how many of the {len(units)} runs to train at once (--jobs N spares this).")
    best, best_rate, jobs, said = 1, 0.0, 1, []
    while jobs <= most:
        rate = images_per_second(units[0], jobs)
        if rate is None:
            said.append(f"{_written(jobs)} could not be measured")
            break
        said.append(f"{_written(jobs)} {rate:,.0f} images/s")
        if rate < best_rate * WORTHWHILE:
            break
        best, best_rate, jobs = jobs, rate, jobs * 2
    view.message(f"{'; '.join(said)}: --jobs {best}.")
    return best


def _written(jobs: int) -> str:
    threads = threads_of(jobs)
    processes = "one process" if jobs == 1 else f"{jobs} processes"
    return f"{processes} with {'one thread' if threads == 1 else f'{threads} threads'}"


def images_per_second(unit: Unit, jobs: int) -> float | None:
    """Images a second that `jobs` processes train together; None where one of them fails or takes too long."""
    queue: Queue[tuple[Job, Event]] = Queue()
    started = [Job(unit.request, unit.key, threads_of(jobs), queue, SECONDS) for _ in range(jobs)]
    try:
        if len(_collected(queue, "ready", jobs)) < jobs:
            return None
        for job in started:
            job.go()
        found = _collected(queue, "measured", jobs)
        if len(found) < jobs or any(not event["images"] for event in found):
            return None
        return sum(float(event["images"]) / float(event["seconds"]) for event in found)
    finally:
        for job in started:
            job.ask_to_stop()
        for job in started:
            job.end()


def _collected(queue: "Queue[tuple[Job, Event]]", kind: str, count: int) -> list[Event]:
    """One event of a kind from each of `count` jobs; fewer when a job ends without it or time runs out."""
    found: dict[Job, Event] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < count and (left := until - time.monotonic()) > 0:
        try:
            job, event = queue.get(timeout=left)
        except Empty:
            break
        if event["event"] == kind:
            found[job] = event
        elif event["event"] == "exited" and job not in found:
            break
    return list(found.values())
