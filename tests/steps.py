"""A learner of the tiny scenario stopped inside a run, and batches to try its loss on."""

from pathlib import Path
from typing import Any

import torch
from tiny import tiny_runner
from torch import Tensor

from imbcil.harness.batch import Batch, Outputs, Phase
from imbcil.harness.loop import batch_targets
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner


def begun(method: str, store: Path, phase: int = 1, **options: Any) -> tuple[Runner, Phase]:
    """The runner with `phase` begun and nothing of it trained, and the learner's view of that phase."""
    runner = tiny_runner(method, store, **options)
    for _ in range(phase):
        runner._run_phase()
    if phase == 0:
        runner._build_network()
    view = runner._phase_view()
    runner.learner.tools.net = runner.learner.net
    torch.manual_seed(0)
    runner.learner.begin_phase(view)
    return runner, view


def batch_of(runner: Runner, pool: Pool, stage: str = "train") -> Batch:
    """All rows of a pool as one batch; stream 1 marks exemplars."""
    images = runner.s.train_bank.test_images(pool.index)
    targets, mask = batch_targets(runner.learner, pool, images)
    return Batch(
        images=images, targets=targets, mask=mask, index=pool.index,
        slot=pool.slot, stream=(pool.slot >= 0).long(), counts=pool.counts(runner.learner.net.n_classes),
        stage=stage, epoch=0, step=0, steps=1, total=1,
    )  # fmt: skip


def outputs(logits: Tensor) -> Outputs:
    """What a network with these logits would have handed to a loss."""
    return Outputs(logits, torch.zeros(len(logits), 1))
