"""How long the rest of a sweep takes, from the speed that this process has measured."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class _Work:
    """One run: its planned images and what this process has seen of it."""

    method: str
    images: int
    done: float = 0.0  # fraction of the run, 0..1
    first: float = 0.0  # fraction at the first report here
    began: float | None = None  # clock at the first report
    seconds: float = 0.0  # between first and last report
    ended: bool = False


@dataclass
class SweepPace:
    """Seconds an image, learner by learner; a learner not measured yet counts as the mean of the others."""

    jobs: int
    clock: Callable[[], float] = time.monotonic
    _work: dict[str, _Work] = field(default_factory=dict)

    def add(self, key: str, method: str, images: int) -> None:
        """A run that is still to be done."""
        self._work[key] = _Work(method, max(images, 1))

    def started(self, key: str) -> None:
        """A process works on the run from now on; where it continues is told by the first report."""
        work = self._work[key]
        work.began, work.first, work.done, work.seconds = None, 0.0, 0.0, 0.0

    def advanced(self, key: str, fraction: float) -> None:
        """`fraction` of the whole run is done."""
        work = self._work[key]
        if work.began is None:
            work.began, work.first = self.clock(), fraction
        work.done, work.seconds = fraction, self.clock() - work.began

    def ended(self, key: str) -> None:
        """Nothing more is to be done, whatever became of the run."""
        work = self._work[key]
        work.ended = True
        if work.began is not None:
            work.seconds = self.clock() - work.began

    def seconds_left(self) -> float | None:
        """None until something was measured."""
        speeds = self._speeds()
        if not speeds:
            return None
        usual = fmean(speeds.values())
        left = [
            work.images * (1 - work.done) * speeds.get(work.method, usual)
            for work in self._work.values()
            if not work.ended
        ]
        return _shared_out(left, self.jobs)

    def _speeds(self) -> Mapping[str, float]:
        """Seconds an image of each learner that has been watched for a while."""
        seconds: dict[str, float] = {}
        images: dict[str, float] = {}
        for work in self._work.values():
            share = work.done - work.first
            if share > 0 and work.seconds > 0:
                seconds[work.method] = seconds.get(work.method, 0.0) + work.seconds
                images[work.method] = images.get(work.method, 0.0) + share * work.images
        return {method: seconds[method] / images[method] for method in seconds}


def _shared_out(left: Sequence[float], jobs: int) -> float:
    """Seconds until the last of `jobs` workers is done; never less than the longest run."""
    return max(sum(left) / jobs, max(left, default=0.0))
