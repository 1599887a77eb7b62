"""Evaluation once a phase, all predictors together: scores of every test image of a seen class."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbcil.harness.contract import Learner
from imbcil.harness.images import ImageBank
from imbcil.harness.network.runtime import EVALUATION_BATCH
from imbcil.harness.tools import evaluation_mode


@torch.no_grad()
def evaluate(learner: Learner, bank: ImageBank, rows: Tensor) -> dict[str, NDArray[np.float32]]:
    """Predictor -> scores [N, K] for dataset rows [N] of `bank`; the primary predictor comes first."""
    parts: dict[str, list[Tensor]] = {}
    with evaluation_mode(learner.net):
        for images, count in bank.evaluation_batches(rows, EVALUATION_BATCH):
            for name, scores in learner.scores(images).items():
                parts.setdefault(name, []).append(scores[:count].float().cpu())
    return {name: torch.cat(batches).numpy() for name, batches in parts.items()}


def score_arrays(
    split: str, rows: Tensor, labels: Tensor, scores: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """What the store keeps of an evaluation: `<split>_rows`, `<split>_labels`, `<split>/<predictor>`."""
    named: dict[str, NDArray[Any]] = {f"{split}/{name}": value for name, value in scores.items()}
    return {f"{split}_rows": rows.numpy(), f"{split}_labels": labels.numpy(), **named}
