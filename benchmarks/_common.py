"""What the benchmarks share: runs of the harness on embedded data, measured in turns, and a small table.

A figure is the ratio of two rates from the same minutes: the epochs alternate, so that noise hits both. Nothing is
asserted: machines differ. On a machine that others use too, BENCH_THREADS=1 BENCH_CLOCK=cpu counts the process's own
seconds.
"""

import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.planning import plan_request
from imbcil.harness.request import RunRequest
from imbcil.harness.runner import Runner
from imbcil.harness.suite import build_setting
from imbcil.harness.view import EpochProgress, RunView, SilentView

THREADS = int(os.environ.get("BENCH_THREADS", "2"))
CPU_CLOCK = os.environ.get("BENCH_CLOCK") == "cpu"  # counts no other process: no DataLoader workers either
SMALL = {
    "backbone.name": "small",
    "train.batch": 32,
}  # the small network of the benchmarks, whatever `quick` has
clock = time.process_time if CPU_CLOCK else time.monotonic
Done = Callable[
    [float], None
]  # told a rate in images/s after each epoch that counts; waits for the next turn


class Enough(BaseException):
    """Leaves a job after its last turn; no handler of ordinary errors may stop it."""


def in_turns(rounds: int, *works: Callable[[Done], None]) -> list[list[float]]:
    """Rates [works][rounds] of jobs that alternate epoch by epoch, each in a process of its own.

    Threads of one process would keep a pool of arithmetic threads each, and waiting pools slow the working one.
    """
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in works]
    jobs = [
        context.Process(target=_job, args=(rounds, work, theirs))
        for work, (_, theirs) in zip(works, pipes, strict=True)
    ]
    rates: list[list[float]] = [[] for _ in works]
    try:
        for job, (_, theirs) in zip(jobs, pipes, strict=True):
            job.start()
            theirs.close()
        for _ in range(rounds):
            for (ours, _), measured in zip(pipes, rates, strict=True):
                ours.send("go")
                measured.append(ours.recv())
    finally:
        for job in jobs:
            job.terminate()
            job.join()
    return rates


def _job(rounds: int, work: Callable[[Done], None], pipe: Connection) -> None:
    sent = 0

    def done(rate: float) -> None:
        nonlocal sent
        pipe.send(rate)
        sent += 1
        if sent == rounds:
            raise Enough
        pipe.recv()

    torch.set_num_threads(THREADS)
    pipe.recv()
    with suppress(Enough):
        work(done)


class Watch(SilentView):
    """Reports the rate of each epoch of one phase; the first ones of the phase warm up."""

    def __init__(self, done: Done, phase: int = 0, warm_up: int = 1) -> None:
        self.done, self.phase, self.warm_up = done, phase, warm_up
        self.started = (0.0, 0.0)

    def epoch(self, progress: EpochProgress) -> None:
        wall, own = time.monotonic() - self.started[0], clock() - self.started[1]
        if progress.phase == self.phase and progress.epoch > self.warm_up:
            self.done(progress.images_per_s * wall / own)
        self.started = time.monotonic(), clock()


def run_harness(view: RunView, **asked: object) -> None:
    """One run on embedded data in a store that is thrown away; `asked` as in a config file."""
    with tempfile.TemporaryDirectory() as store:
        request = RunRequest.model_validate({"store": store, "no_tracking": True, **asked})
        _, planned = plan_request(request, view)
        run = planned[0]
        run.folder.path.mkdir(parents=True)
        run.folder.create(run.info, run.config)
        Runner(build_setting(run, request, view, None)).run()


def harness(phase: int = 0, warm_up: int = 1, **asked: object) -> Callable[[Done], None]:
    """A job for `in_turns`: the epochs of one phase of a run."""
    return lambda done: run_harness(Watch(done, phase, warm_up), **asked)


def loader_loop(
    pictures: "Dataset[tuple[Tensor, object]]",
    workers: int,
    batch: int,
    backbone: str,
    classes: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimiser: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> Callable[[Done], None]:
    """A job for `in_turns`: the usual training loop around a DataLoader, eager, in float32 and NCHW."""

    def work(done: Done) -> None:
        loader = DataLoader(
            pictures, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        net = build_backbone(backbone)
        head = nn.Linear(net.dim, classes)
        steps = optimiser([*net.parameters(), *head.parameters()])

        def epoch() -> int:
            seen = 0
            for images, labels in loader:
                value = loss(head(net(images)["features"]), labels)
                steps.zero_grad()
                value.backward()
                steps.step()
                seen += len(images)
            return seen

        epoch()
        while True:
            done(timed(epoch))

    return work


def against_todays_way(
    rounds: int,
    title: str,
    ours: dict[str, Callable[[Done], None]],
    today: Callable[[int], Callable[[Done], None]],
    asked: str,
) -> None:
    """Print the rates of `ours` over the faster of `today` (number of worker processes -> job)."""
    workers = (0,) if CPU_CLOCK else (0, 2)
    theirs = {f"DataLoader, {count} workers": today(count) for count in workers}
    rates = dict(zip((*ours, *theirs), in_turns(rounds, *ours.values(), *theirs.values()), strict=True))
    faster = max(theirs, key=lambda name: median(rates[name]))
    rows = [ratio_row(f"{name} / {faster}", rates[name], rates[faster], asked) for name in ours]
    print_table(title, ("harness / today's way", "harness/s", "today/s", "ratio", "spread", "asked"), rows)


def ratio_row(name: str, above: Sequence[float], below: Sequence[float], target: str) -> tuple[str, ...]:
    """A table row: both median rates, the median ratio of neighbours in time, its spread, and what is asked."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}, n = {len(ratios)}"
    return name, f"{median(above):,.0f}", f"{median(below):,.0f}", f"{median(ratios):.3f}", spread, target


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table with a line on the machine."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    print(title)
    for row in (header, ["-" * width for width in widths], *rows):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        f"  {_processor()}, {THREADS} threads, {'CPU seconds' if CPU_CLOCK else 'seconds'}, torch {torch.__version__}\n",
        flush=True,
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1] for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        return names[0].strip() if names else platform.machine()
    return platform.processor() or platform.machine()


def timed(work: Callable[[], int]) -> float:
    """Images per second of `work`, which returns how many it saw."""
    started = clock()
    return work() / (clock() - started)
