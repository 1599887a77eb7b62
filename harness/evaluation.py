"""Evaluation once a phase, all predictors together: scores of every test image of a seen class or, with several
labels an image, of all test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.batch import Phase
from imbcil.harness.contract import Learner
from imbcil.harness.images import ImageBank
from imbcil.harness.network.runtime import evaluation_batch
from imbcil.harness.phases import arrival_targets
from imbcil.harness.tools import evaluation_mode
from imbcil.protocols.scenario import Scenario


@torch.no_grad()
def evaluate(learner: Learner, bank: ImageBank, rows: Tensor) -> dict[str, NDArray[np.float32]]:
    """Predictor -> scores [N, K] for dataset rows [N] of `bank`; the primary predictor comes first.

    Raises ContractViolation for scores that are none, of another shape, or NaN.
    """
    parts: dict[str, list[Tensor]] = {}
    with evaluation_mode(learner.net):
        for images, count in bank.evaluation_batches(rows, evaluation_batch(bank.size)):
            for name, scores in learner.scores(images).items():
                parts.setdefault(name, []).append(scores[:count].float().cpu())
    found = {name: torch.cat(batches).numpy() for name, batches in parts.items()}
    if len(rows):
        _check_scores(found, (len(rows), learner.net.n_classes), learner.name)
    return found


def _check_scores(found: Mapping[str, NDArray[np.float32]], wanted: tuple[int, int], learner: str) -> None:
    if not found:
        raise ContractViolation(f"scores() of {learner} names no predictor; return at least one.")
    for name, scores in found.items():
        if scores.shape != wanted:
            raise ContractViolation(
                f"The scores {name!r} of {learner} are {list(scores.shape)}; wanted are {list(wanted)}, images by "
                "seen classes."
            )
        if np.isnan(scores).any():
            raise ContractViolation(
                f"The scores {name!r} of {learner} hold NaN: the network has diverged (try a smaller --set "
                "train.lr) or scores() is at fault."
            )


def score_arrays(
    split: str, rows: Tensor, labels: Tensor, scores: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """What the store keeps of an evaluation: `<split>_rows`, `<split>/<predictor>` and `<split>_labels` [N] or, with
    several labels an image, `<split>_targets` uint8 [N, K]."""
    named: dict[str, NDArray[Any]] = {f"{split}/{name}": value for name, value in scores.items()}
    kind = "labels" if labels.dim() == 1 else "targets"
    return {f"{split}_rows": rows.numpy(), f"{split}_{kind}": labels.numpy(), **named}


def evaluate_phase(
    learner: Learner, scenario: Scenario, phase: Phase, banks: dict[str, ImageBank]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[Any]]]:
    """(scores of the test rows by predictor, everything that the store keeps of them and of the hold-out)."""
    rows = evaluation_rows(scenario, phase.index)
    scores = evaluate(learner, banks["test"], rows)
    arrays = score_arrays("test", rows, _truth(scenario, banks, "test", rows, phase.hi), scores)
    if len(phase.holdout):
        held = phase.holdout.index
        holdout = evaluate(learner, banks["train"], held)
        arrays |= score_arrays("holdout", held, _truth(scenario, banks, "train", held, phase.hi), holdout)
    return scores, arrays


def evaluation_rows(scenario: Scenario, phase: int) -> Tensor:
    """Test rows that are scored after a phase: those of seen classes; with several labels an image, all of them."""
    if scenario.label_kind == "multi":
        assert scenario.images is not None
        return torch.arange(len(scenario.images.test))
    return torch.cat([torch.from_numpy(part.test) for part in scenario.phases[: phase + 1]])


def _truth(
    scenario: Scenario, banks: dict[str, ImageBank], split: str, rows: Tensor, n_classes: int
) -> Tensor:
    """Labels of rows [N], or with several labels an image their columns of seen classes [N, K] uint8."""
    if scenario.label_kind == "multi":
        return torch.from_numpy(arrival_targets(scenario, split)[rows.numpy(), :n_classes])
    return banks[split].targets(rows)
