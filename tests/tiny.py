"""The tiny scenario that every learner must survive: 8 x 8 pixels, 6 classes in phases of 3, 1 and 2, a class smaller
than its quota, a gap in the labels. Images are coloured patterns, so that there is something to learn."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imbcil.harness.planning import PlannedRun, plan_run
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import resolve_plans
from imbcil.harness.runner import Runner
from imbcil.harness.scenario_request import resolve_recipe
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
MULTI_ORDER = (4, 0, 3, 2, 5, 1)  # arrival id -> original column
MULTI_TRAIN = [
    "0",
    "0",
    "01",
    "1",
    "1",
    "02",
    "2",
    "2",
    "012",
    "03",
    "13",
    "3",
    "3",
    "3",
    "34",
    "4",
    "4",
    "45",
    "45",
    "4",
    "4",
    "25",
    "04",
    "24",
    "0",
    "2",
    "14",
    "1",
    "0",
    "4",
    "01",
    "2",
    "34",
    "3",
]
MULTI_TEST = [
    "0",
    "01",
    "1",
    "02",
    "2",
    "12",
    "3",
    "03",
    "34",
    "4",
    "45",
    "5",
    "25",
    "14",
    "3",
    "4",
    "5",
    "0",
    "1",
    "2",
]
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


def tiny_multi_scenario() -> Scenario:
    """8 x 8 pixels, 6 classes in phases of 3, 1 and 2; images with up to three labels that come again in later phases;
    a class whose positives are few, an ignored cell in its own phase, test images without a seen class."""
    train, test = multi_hot(MULTI_TRAIN, MULTI_ORDER), multi_hot(MULTI_TEST, MULTI_ORDER)
    train[0, MULTI_ORDER[1]] = 255  # ignored while its own phase runs
    phases, lo = [], 0
    for index, size in enumerate(SIZES):
        own = MULTI_ORDER[lo : lo + size]
        rows, tested = (np.flatnonzero((split[:, list(own)] == 1).any(axis=1)) for split in (train, test))
        phases.append(
            ScenarioPhase(index, lo, lo + size, tuple(own), rows, rows, rows[:0], tested)
        )  # fmt: skip
        lo += size
    nothing = np.full(len(train), -1), np.full(len(test), -1)
    images = ImageArrays(
        mixed_images(train, 1), mixed_images(test, 2), *nothing, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), size=8,
        train_targets=train, test_targets=test,
    )  # fmt: skip
    own_positives = np.concatenate(
        [(train[part.train][:, list(part.classes)] == 1).sum(axis=0) for part in phases]
    )
    return Scenario(
        settings=ProtocolSettings(protocol="mlcil", dataset="tiny-ml", sizes=SIZES), column="sizes-3-1-2",
        dataset="tiny-ml", label_kind="multi", order=MULTI_ORDER,
        class_names=tuple(f"class {label}" for label in MULTI_ORDER), raw_counts=own_positives, phases=tuple(phases),
        digest="e" * 64, family="g" * 64, embedded=True, imbalance_text="by hand", images=images,
        arrival_id=np.argsort(MULTI_ORDER),
    )  # fmt: skip


def multi_hot(words: list[str], order: tuple[int, ...]) -> np.ndarray:
    """uint8 [N, C] in the original order; each word lists an image's arrival ids."""
    targets = np.zeros((len(words), len(order)), dtype=np.uint8)
    for row, word in enumerate(words):
        targets[row, [order[int(digit)] for digit in word]] = 1
    return targets


def mixed_images(targets: np.ndarray, seed: int) -> np.ndarray:
    """The mean of the patterns of an image's classes, and noise."""
    patterns = np.random.default_rng(0).integers(0, 256, (targets.shape[1], 8, 8, 3))
    shown = (targets == 1).astype(float)
    mixed = np.einsum("nc,chwk->nhwk", shown / shown.sum(axis=1, keepdims=True), patterns)
    noise = np.random.default_rng(seed).normal(0, 30, mixed.shape)
    return np.clip(mixed + noise, 0, 255).astype(np.uint8)


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
    protocol = "mlcil" if scenario is not None and scenario.label_kind == "multi" else "lfs"
    request = RunRequest(
        protocol=protocol,
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
