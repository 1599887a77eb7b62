"""Costs of a phase: counted over restarts, kept under names of their own."""

import resource

import pytest
import torch

from imbcil.harness.costs import Costs, peak_memory_mb

CPU = torch.device("cpu")


def counted() -> Costs:
    costs = Costs(CPU)
    costs.train_s, costs.end_s, costs.evaluation_s = 4.0, 1.5, 0.5
    costs.images, costs.trained_images = 1300, 1200
    return costs


def test_costs_are_named_and_in_their_units():
    metrics = counted().metrics(parameters=10, exemplars=20, image_bytes=3072)
    peak = metrics.pop("cost/peak_mem_mb")
    assert metrics == {
        "cost/train_s": 4, "cost/end_s": 1.5, "cost/evaluation_s": 0.5, "cost/images_per_s": 300, "cost/params": 10,
        "cost/exemplars": 20, "cost/exemplars_mb": pytest.approx(0.06144),
    }  # fmt: skip
    assert peak > 0


def test_a_phase_without_training_has_no_rate():
    assert Costs(CPU).metrics(0, 0, 0)["cost/images_per_s"] == 0


def test_counting_goes_on_after_a_restart():
    again = Costs(CPU)
    again.load_state(counted().to_state())
    again.train_s += 2
    again.trained_images += 600
    assert again.to_state() == {**counted().to_state(), "train_s": 6.0, "trained_images": 1800}
    assert again.metrics(0, 0, 0)["cost/images_per_s"] == 300


def test_every_phase_starts_from_nothing():
    costs = counted()
    costs.reset()
    assert costs.to_state() == Costs(CPU).to_state() == dict.fromkeys(counted().to_state(), 0)


@pytest.mark.parametrize(("system", "raw"), [("linux", 2_000_000), ("darwin", 2_000_000_000)])
def test_peak_memory_is_in_megabytes_whatever_the_system_counts_in(system: str, raw: int, monkeypatch):
    class Usage:
        ru_maxrss = raw

    monkeypatch.setattr(resource, "getrusage", lambda who: Usage)
    monkeypatch.setattr("sys.platform", system)
    assert peak_memory_mb(CPU) == 2000
