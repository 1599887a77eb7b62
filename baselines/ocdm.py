"""OCDM: a memory whose label distribution is as near as greedy removal gets to a target (Liang & Li, 2022)."""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from imbcil.harness.contract import Learner, MixedConfig, Needs, Phase, Stage
from imbcil.harness.offering import accept, offer
from imbcil.harness.stages import mixed_stage

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class OCDMConfig(MixedConfig):
    """`power`: rho of the target n^rho / sum n^rho; 0, the uniform one, in ports, 0.5 in CUTER's settings. `offered`:
    images that are put beside the memory at once."""

    power: float = 0.0
    offered: int = Field(default=12, ge=1)


class OCDM(Learner):
    """Predictor: "fc". Replay with binary cross-entropy over visible cells; an image is offered to the memory once a
    phase, at its end and in random order, in small batches.

    Label policy mask_current, memory capture_only. No official code: from the paper's greedy rule, in which the row
    whose removal leaves the smallest KL(memory || target) goes. Unknown: what breaks ties (here a draw).
    """

    title = "OCDM"
    Config = OCDMConfig
    needs = Needs(labels=frozenset({"multi"}), sampler="own")
    cfg: OCDMConfig

    def stages(self, phase: Phase) -> list[Stage]:
        return [mixed_stage(phase, self.cfg.train, 1, self.cfg.ratio)]

    def end_phase(self, phase: Phase) -> None:
        made, rows = offer(self, phase), list(range(len(self.memory)))
        ties = torch.rand(len(made.labels), generator=made.generator, dtype=torch.float64).numpy()
        seen = made.seen.copy()
        for start in range(made.held, len(made.labels), self.cfg.offered):
            fresh = range(start, min(start + self.cfg.offered, len(made.labels)))
            seen += made.labels[list(fresh)].sum(axis=0)
            rows = nearest(made.labels, [*rows, *fresh], made.room, seen, self.cfg.power, ties)
        accept(self, phase, made, rows, seen)


def nearest(labels: Flags, rows: list[int], room: int, seen: Floats, power: float, ties: Floats) -> list[int]:
    """`room` of `rows` into labels [N, K], by removing one at a time the row that leaves the smallest divergence from
    the target shares seen^power; of equals, the one with the smallest of `ties` [N]."""
    target = np.where(seen > 0, np.maximum(seen, 1.0) ** power, 0.0)
    target = np.maximum(target / max(target.sum(), 1e-12), 1e-12)
    kept = np.array(rows)
    mine = labels[kept].astype(np.float64)
    filled = mine.sum(axis=0)
    stays = np.ones(len(kept), dtype=bool)
    for _ in range(len(kept) - room):
        left = np.where(stays, divergence_without(mine, filled, target), np.inf)
        least = np.flatnonzero(stays & (left <= left[stays].min() + 1e-12))
        place = int(least[ties[kept[least]].argmin()])
        stays[place] = False
        filled = filled - mine[place]
    return [int(row) for row in kept[stays]]


def divergence_without(mine: Floats, filled: Floats, target: Floats) -> Floats:
    """KL(memory || target) [n] after the removal of each row of `mine` [n, K]; `filled` [K] are the labels of all.

    With whole counts the sum over classes changes only at the row's own labels, so that one product serves all rows.
    """
    now = filled * np.log(np.maximum(filled, 1.0) / target)
    less = (filled - 1) * np.log(np.maximum(filled - 1, 1.0) / target)
    total = filled.sum() - mine.sum(axis=1)
    change = np.where(filled > 0, now - less, 0.0)
    whole = np.maximum(total, 1.0)
    result: Floats = np.where(total > 0, (now.sum() - mine @ change) / whole - np.log(whole), np.inf)
    return result
