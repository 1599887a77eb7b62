"""MORE's term at every step of a run, against a network of its own with the general weights alone, in float64."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import LABELS, tiny_runner
from torch import nn

import imbcil.harness.loop as loop
from imbcil.harness.batch import Batch
from imbcil.harness.loop import StageContext
from imbcil.harness.network.network import Network
from imbcil.methods.plugins._split import SplitConv2d, split_modules


def general(net: Network) -> Network:
    """A copy whose convolutions forget their tails."""
    plain = copy.deepcopy(net)
    for module in plain.modules():
        if isinstance(module, SplitConv2d):
            module.__class__ = nn.Conv2d
    return plain


def compared(net: Network, batch: Batch) -> np.ndarray:
    out = net(batch.images)
    raw = out.extras.get("cos", out.extras.get("similarity", out.logits))
    return raw.detach().double().numpy()


@pytest.mark.parametrize(
    ("method", "memory"),
    [
        ("icarl+more+mixup", "4/class"), ("icarl+mixup+more", "4/class"), ("foster+more", "7"),
        ("podnet+more+class_balanced_sampling", "4/class"), ("lucir+balanced_softmax+more", "4/class"),
        ("finetune+more", "0"),
    ],
)  # fmt: skip
def test_the_term_of_every_step_is_that_of_the_formula(
    method: str, memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tiny_runner(method, tmp_path, memory=memory)
    arrival = {label: number for number, label in enumerate(LABELS)}
    classes = np.array([arrival[int(label)] for label in runner.s.scenario.images.train_labels])
    checked, step = [], loop.train_step

    def watched(run: StageContext, batch: Batch) -> Any:
        net = run.learner.net
        if not split_modules(net):
            return step(run, batch)
        gap = np.square(compared(copy.deepcopy(net), batch) - compared(general(net), batch))
        counts = np.bincount(classes[run.pool.index.numpy()], minlength=net.n_classes)
        prior, targets = counts / counts.sum(), batch.targets.numpy()
        weights = prior[targets]
        if "mixup" in method:
            share, partner = batch.scratch["mixup"]
            weights = share * weights + (1 - share) * prior[targets[partner.numpy()]]
        place = (batch.epoch * batch.steps + batch.step) / (run.stage.optim.epochs * batch.steps)
        peak = 2.0 * (counts > 0).sum()
        wanted = math.sin(math.pi * place) * peak * (weights * gap[:, counts > 0].sum(axis=1)).mean()
        terms = step(run, batch)
        assert float(terms["more"]) == pytest.approx(wanted, rel=1e-4, abs=1e-9)
        checked.append(wanted)
        return terms

    monkeypatch.setattr(loop, "train_step", watched)
    runner.run()
    assert len(checked) > 6 and max(checked) > 1e-5
