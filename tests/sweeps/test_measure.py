"""How many runs at once: doubled while that trains more, and said in the log."""

from types import SimpleNamespace
from typing import Any

import pytest

from imbcil.harness.sweeps import measure
from imbcil.harness.view import SilentView


class Log(SilentView):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def units(count: int, device: str = "cpu") -> Any:
    return [SimpleNamespace(run=SimpleNamespace(device=SimpleNamespace(type=device)))] * count


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """A machine of so many cores on which n processes train so many images a second."""

    def build(cores: int, rates: dict[int, float | None]) -> list[int]:
        asked: list[int] = []

        def rate(unit: object, jobs: int) -> float | None:
            asked.append(jobs)
            return rates[jobs]

        monkeypatch.setattr(measure, "cores", lambda: cores)
        monkeypatch.setattr(measure, "images_per_second", rate)
        monkeypatch.setattr(measure.torch, "get_num_threads", lambda: cores)
        return asked

    return build


@pytest.mark.parametrize(
    ("cores", "runs", "rates", "asked", "chosen"),
    [
        (2, 48, {1: 980.0, 2: 1030.0}, [1, 2], 2),
        (2, 48, {1: 980.0, 2: 990.0}, [1, 2], 1),  # no gain worth the memory
        (8, 48, {1: 100.0, 2: 180.0, 4: 300.0, 8: 290.0}, [1, 2, 4, 8], 4),
        (8, 3, {1: 100.0, 2: 180.0}, [1, 2], 2),  # never more processes than runs
        (8, 48, {1: 100.0, 2: None}, [1, 2], 1),  # two do not fit into the memory
        (8, 1, {}, [], 1),
        (1, 48, {}, [], 1),
    ],
)
def test_processes_are_doubled_while_they_train_more(machine, cores, runs, rates, asked, chosen) -> None:
    log = Log()
    seen = machine(cores, rates)
    assert measure.choose_jobs(units(runs), log) == chosen
    assert seen == asked
    assert not asked or log.said[-1].endswith(f"--jobs {chosen}.")
    if rates.get(1):
        assert f"{rates[1]:.0f} images/s" in log.said[-1]


def test_threads_are_split_among_the_processes(machine) -> None:
    machine(8, {})
    assert [measure.threads_of(jobs) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
