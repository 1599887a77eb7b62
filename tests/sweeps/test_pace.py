"""The time left follows from seconds an image, learner by learner."""

import pytest

from imbcil.harness.sweeps.pace import SweepPace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_promised_before_something_was_measured(clock: Clock) -> None:
    pace = SweepPace(1, clock)
    pace.add("a", "icarl", 100)
    assert pace.seconds_left() is None
    pace.started("a")
    pace.advanced("a", 0.1)
    assert pace.seconds_left() is None  # one report is no speed


def test_a_learner_goes_at_its_own_measured_speed_and_others_at_the_mean(clock: Clock) -> None:
    pace = SweepPace(1, clock)
    for key, method, images in [
        ("a", "icarl", 100),
        ("b", "icarl", 300),
        ("c", "foster", 100),
        ("d", "wa", 100),
    ]:
        pace.add(key, method, images)
    pace.started("a")
    pace.advanced("a", 0.5)  # it continued in its middle
    clock.now = 10.0
    pace.advanced("a", 1.0)  # 50 images in 10 s: 0.2 s an image
    pace.ended("a")
    pace.started("c")
    pace.advanced("c", 0.25)
    clock.now = 20.0
    pace.advanced("c", 0.5)  # 25 images in 10 s: 0.4 s an image
    # b: 300 x 0.2, the rest of c: 50 x 0.4, d: 100 x the mean 0.3
    assert pace.seconds_left() == pytest.approx(60 + 20 + 30)


def test_jobs_share_the_work_but_the_longest_run_bounds_it(clock: Clock) -> None:
    pace = SweepPace(4, clock)
    for key, images in [("a", 100), ("b", 1000), ("c", 100), ("d", 100)]:
        pace.add(key, "icarl", images)
    pace.started("a")
    pace.advanced("a", 0.0)
    clock.now = 1.0
    pace.advanced("a", 1.0)
    pace.ended("a")
    assert pace.seconds_left() == pytest.approx(10.0)  # b alone; the mean would be 1,200 / 100 / 4 = 3
    pace.ended("b")
    assert pace.seconds_left() == pytest.approx(1.0)
