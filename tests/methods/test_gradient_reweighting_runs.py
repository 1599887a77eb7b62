"""Gradient reweighting at every step of a run, for every switch, against the formulas written again in numpy, float64."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LABELS, SIZES, tiny_runner

import imbcil.harness.loop as loop
from imbcil.harness.batch import Batch
from imbcil.harness.loop import StageContext

DEFAULTS: dict[str, Any] = {
    "prior": True, "alpha": True, "decoupling": True, "ratio": True, "symmetric_ratio": False, "beta": True,
    "distillation": "dakd", "normalisation": "norm2", "gamma": 1.0, "temperature": 2.0, "strength": 0.7,
    "attenuation": "images",
}  # fmt: skip
Array = np.ndarray


def softmax(z: Array) -> Array:
    grown = np.exp(z - z.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def smallest_over(phi: Array) -> Array:
    there = phi > 0
    return np.where(there, phi[there].min(initial=np.inf) / np.where(there, phi, 1), 1.0)


def wanted(
    cfg: dict[str, Any], h: Array, z: Array, y: Array, counts: Array, own: Array, kept: Array, phi: Array,
    taught: Array | None,
) -> tuple[Array, Array]:  # fmt: skip
    """Head gradients [K, D] and [K] of one step; `phi` [K] grows in place. counts: rows of the pool; own: images of each
    class in its phase; kept: exemplars of the old classes, in which phase they are old."""
    n_old, rows = len(kept), len(y)
    filled = np.maximum(counts, 1)
    p = softmax(z + np.log(filled / filled.sum()) if cfg["prior"] else z)
    p[np.arange(rows), y] -= 1
    weight, bias = p.T @ h / rows, p.sum(axis=0) / rows
    norms = np.linalg.norm(weight, axis=1)
    phi += norms
    scale, sides = np.ones(len(phi)), [phi[:n_old], phi[n_old:]] if cfg["decoupling"] and n_old else [phi]
    if cfg["alpha"]:
        scale = np.concatenate([smallest_over(side) for side in sides])
    n_seen, n_new = own[:n_old].sum(), own[n_old:].sum()
    if cfg["ratio"] and n_old:
        rho = n_seen / (n_seen + n_new) if cfg["attenuation"] == "images" else n_old / len(own)
        ratio = phi[n_old:].mean() / phi[:n_old].mean()
        scale[:n_old] *= min(1, ratio)
        scale[n_old:] *= min(
            1, (1 / ratio if cfg["symmetric_ratio"] else ratio) * math.exp(-cfg["gamma"] * rho)
        )
    weight, bias = scale[:, None] * weight, scale * bias
    if taught is None:
        return weight, bias
    t, lost = cfg["temperature"], own[:n_old] - kept
    sigma, mixing = 1.0, np.zeros(n_old)
    if cfg["distillation"] == "dakd":
        share = (lost + 0.001) / (lost + 0.001).sum()
        sigma = -(share * np.log(share)).sum() / math.log(n_old)
        mixing = lost / (lost.sum() if cfg["normalisation"] == "sum" else np.linalg.norm(lost))
    target, mixed = softmax(taught / t), mixing * z[:, :n_old] + (1 - mixing) * taught
    slope = sigma * (softmax(z[:, :n_old] / t) - target)
    slope = (slope + (1 - sigma) * mixing * (softmax(mixed / t) - target)) / t / rows
    beta = cfg["strength"] * math.sqrt(n_seen / n_new) * t**2
    if cfg["beta"]:
        beta = np.linalg.norm(scale * norms) / np.linalg.norm(slope.T @ h)
    weight[:n_old] += beta * slope.T @ h
    bias[:n_old] += beta * slope.sum(axis=0)
    return weight, bias


@pytest.mark.parametrize(
    ("changed", "memory"),
    [
        ({}, "7"), ({}, "0"), ({"prior": False, "decoupling": False}, "4/class"),
        ({"symmetric_ratio": True, "normalisation": "sum", "attenuation": "classes"}, "4/class"),
        ({"alpha": False, "distillation": "kd"}, "4/class"), ({"ratio": False}, "4/class"),
        ({"beta": False, "gamma": 2.0, "temperature": 3.0, "strength": 0.5}, "4/class"),
        ({"distillation": "none"}, "4/class"),
    ],
)  # fmt: skip
def test_every_step_of_a_run_leaves_the_wanted_gradients_on_the_head(
    changed: dict[str, Any], memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {f"gradient_reweighting.{name}": value for name, value in changed.items()}
    runner = tiny_runner("gradient_reweighting", tmp_path, memory=memory, settings=settings)
    arrival = {label: number for number, label in enumerate(LABELS)}
    classes = np.array([arrival[int(label)] for label in runner.s.scenario.images.train_labels])
    own = np.zeros(len(LABELS))
    for part in runner.s.scenario.phases:
        own += np.bincount(classes[part.train], minlength=len(LABELS))
    phi: dict[int, Array] = {}
    checked, step = [], loop.train_step

    def watched(run: StageContext, batch: Batch) -> Any:
        learner, n_classes, phase = run.learner, run.learner.net.n_classes, int(str(run.key[1]))
        pool, held = classes[run.pool.index.numpy()], run.pool.slot.numpy() >= 0
        out = copy.deepcopy(learner.net)(batch.images)
        taught = None
        if phase and changed.get("distillation") != "none":
            taught = learner.state["old"](batch.images).logits.double().numpy()
        weight, bias = wanted(
            DEFAULTS | changed, out.features.detach().double().numpy(), out.logits.detach().double().numpy(),
            batch.targets.numpy(), np.bincount(pool, minlength=n_classes), own[:n_classes],
            np.bincount(pool[held], minlength=n_classes)[: sum(SIZES[:phase])],
            phi.setdefault(phase, np.zeros(n_classes)), taught,
        )  # fmt: skip
        terms = step(run, batch)
        for blocks, right in (("weight", weight), ("bias", bias)):
            found = np.concatenate(
                [getattr(b, blocks).grad.double().numpy() for b in learner.net.head.blocks]
            )
            assert np.abs(found - right).max() < 2e-5 * np.abs(right).max()
        checked.append(phase)
        return terms

    monkeypatch.setattr(loop, "train_step", watched)
    runner.run()
    assert set(checked) == {0, 1, 2}
