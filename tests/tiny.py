"""The tiny scenario that every learner must survive: 8 x 8 pixels, 6 classes in phases of 3, 1 and 2, a class smaller
than its quota, a gap in the labels. Images are coloured patterns, so that there is something to learn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbcil.harness.planning import PlannedRun, plan_run
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import resolve_plans, resolve_recipe
from imbcil.harness.runner import Runner
from imbcil.harness.store.layout import Store
from imbcil.harness.store.run_folder import RunFolder
from imbcil.harness.suite import build_setting
from imbcil.harness.view import SilentView
from imbcil.protocols.scenario import ImageArrays, Scenario, ScenarioPhase
from imbcil.protocols.settings import ProtocolSettings

LABELS = (4, 0, 7, 2, 5, 1)  # by arrival id; 3 and 6 do not occur
SIZES = (3, 1, 2)
TRAIN = (12, 3, 8, 6, 2, 9)
HELD = (1, 0, 1, 1, 0, 1)
TEST_IMAGES = 4
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "reduced": True,
    "data": {"holdout": 0.1},
    "backbone": {"name": "tiny"},
    "augment": {"crop": "pad", "pad": 1, "flip": True},
    "memory": {"budget": "4/class"},
    "train": {"epochs": 2, "batch": 8, "lr": 0.05, "schedule": "cosine", "weight_decay": 5e-4},
}


def tiny_scenario(labels: tuple[int, ...] = LABELS) -> Scenario:
    """See the module's docstring."""
    train_labels = np.repeat(labels, TRAIN)
    test_labels = np.repeat(labels, TEST_IMAGES)
    arrival = np.full(max(labels) + 1, -1)
    arrival[list(labels)] = np.arange(len(labels))
    phases, lo = [], 0
    for index, size in enumerate(SIZES):
        own = labels[lo : lo + size]
        before = np.flatnonzero(np.isin(train_labels, own))
        held = np.concatenate(
            [
                np.flatnonzero(train_labels == label)[:n]
                for label, n in zip(own, HELD[lo : lo + size], strict=True)
            ]
        )
        phases.append(
            ScenarioPhase(index, lo, lo + size, tuple(own), before, np.setdiff1d(before, held), held,
                          np.flatnonzero(np.isin(test_labels, own)))
        )  # fmt: skip
        lo += size
    images = ImageArrays(
        _images(train_labels, 1), _images(test_labels, 2), train_labels, test_labels,
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8,
    )  # fmt: skip
    return Scenario(
        settings=ProtocolSettings(protocol="lfs", dataset="tiny", n_tasks=3), column="sizes-3-1-2", dataset="tiny",
        label_kind="single", order=labels, class_names=tuple(f"class {label}" for label in labels),
        raw_counts=np.array(TRAIN), phases=tuple(phases), digest="d" * 64, family="f" * 64, embedded=True,
        imbalance_text="by hand", images=images, arrival_id=arrival,
    )  # fmt: skip


def _images(labels: np.ndarray, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).integers(0, 256, (max(labels) + 1, 8, 8, 3))
    noise = generator.normal(0, 40, (len(labels), 8, 8, 3))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)


def tiny_plan(
    method: str, store: Path, *, memory: str = "4/class", seed: int = 0, scenario: Scenario | None = None,
    settings: Mapping[str, Any] | None = None, recipe: Mapping[str, Any] | None = None, every: float = 1e9,
    preset: str | None = None,
) -> tuple[PlannedRun, RunRequest]:  # fmt: skip
    """A run of `method` on the tiny scenario, ready to be trained in `store`."""
    request = RunRequest(
        method=(method,), memory=memory, recipe={**RECIPE, **(recipe or {})}, set=dict(settings or {}),
        no_tracking=True, device="cpu", precision="fp32", compile="off", checkpoint_every=every, preset=preset,
    )  # fmt: skip
    plan = resolve_plans(request, resolve_recipe(request)[0])[0]
    place = Store(store)
    place.prepare()
    run = plan_run(plan, request, scenario or tiny_scenario(), seed, torch.device("cpu"), "fp32", place)
    run.folder.create(run.info, run.config)
    return run, request


def tiny_runner(method: str, store: Path, **options: Any) -> Runner:
    """A runner that stands at the beginning, or wherever the run in `store` stopped."""
    run, request = tiny_plan(method, store, **options)
    return Runner(build_setting(run, request, SilentView(), None))


def all_scores(folder: RunFolder) -> dict[str, np.ndarray]:
    """Every stored score of a run, by phase and predictor."""
    phases = range(len(folder.records()))
    return {f"{phase}/{name}": value for phase in phases for name, value in folder.load_scores(phase).items()}
