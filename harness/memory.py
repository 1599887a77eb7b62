"""Exemplar memory: dataset indices (never pixels), in herding order per class, with extra columns if wanted."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.labels import GIVEN, LabelFirewall
from imbcil.harness.pools import Pool
from imbcil.harness.settings import MemorySettings

Chooser = Callable[[Tensor, int, torch.Generator], Tensor]  # (features [n, D], m, generator) -> rows [<= m]


def herding(features: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows whose running mean stays closest to the class mean, in order of choice [min(count, n)].

    features [n, D]: they are L2-normalised, the class mean is not normalised again, and no row is taken twice.
    Rebuffi et al. 2017, alg. 4. The first m of a longer choice are the choice of m. CPU float64.
    """
    normal = torch.nn.functional.normalize(features.double().cpu(), dim=1)
    count = min(count, len(normal))
    mean = normal.mean(dim=0) if len(normal) else normal.sum(dim=0)
    gram_mean = normal @ mean  # closest running mean: maximise 2 f.(k mu - S) - |f|^2 over the rows left
    squared = normal.square().sum(dim=1)
    total = torch.zeros_like(mean)
    taken = torch.zeros(len(normal), dtype=torch.bool)
    chosen: list[int] = []
    for k in range(1, count + 1):
        gain = 2 * (k * gram_mean - normal @ total) - squared
        gain[taken] = -torch.inf
        best = int(gain.argmax())
        chosen.append(best)
        taken[best] = True
        total += normal[best]
    return torch.tensor(chosen, dtype=torch.int64)


def random_choice(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows drawn without replacement [min(count, n)]."""
    return torch.randperm(len(features), generator=generator)[:count]


CHOOSERS: dict[str, Chooser] = {"herding": herding, "random": random_choice}


class Memory:
    """Rows kept from earlier phases. `index`, `quota` (class), `phase` [M] int64 and named extras [M, w].

    With several labels an image (`firewall`), the extras `targets` float32 [M, K] and `prov` uint8 [M, K] come by
    themselves: provenance 0 hidden, 1 given, 2 written by a past model, 3 by the current one.
    """

    def __init__(self, settings: MemorySettings, firewall: LabelFirewall | None = None) -> None:
        self.settings = settings
        self._firewall = firewall  # a learner holds this memory, and may not reach the truth through it
        self.index = torch.empty(0, dtype=torch.int64)
        self.quota_class = torch.empty(0, dtype=torch.int64)
        self.phase = torch.empty(0, dtype=torch.int64)
        self.extras: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.index)

    def pool(self) -> Pool:
        """All exemplars, in stored order: by class, and within a class in order of choice."""
        positives = self.visible_targets() >= 0.5 if "prov" in self.extras else None
        return Pool(self.index, self.quota_class, torch.arange(len(self)), positives)

    def visible_targets(self) -> Tensor:
        """Labels of all exemplars [M, K] with several labels an image, NaN where hidden."""
        return torch.where(self.extras["prov"] > 0, self.extras["targets"], float("nan"))

    @property
    def relabels(self) -> bool:
        """Whether a learner may write labels (`labels.memory: relabel`)."""
        return self._firewall is not None and self._firewall.memory_policy == "relabel"

    def relabel(self, slots: Tensor, classes: slice, values: Tensor, provenance: int) -> None:
        """Write `values` [n, k] into columns `classes` of exemplars [n]; NaN hides a cell again.

        `provenance`: PAST_MODEL or CURRENT_MODEL. Given labels stay as they are. Raises ContractViolation where
        `labels.memory` is not "relabel".
        """
        if not self.relabels:
            raise ContractViolation("Exemplars may be relabelled only with labels.memory = relabel.")
        prov, targets = self.extras["prov"].clone(), self.extras["targets"].clone()
        free = prov[slots, classes] != GIVEN
        source = torch.where(values.isnan(), 0, provenance).to(torch.uint8)
        prov[slots, classes] = torch.where(free, source, prov[slots, classes])
        targets[slots, classes] = torch.where(free, values.to(targets), targets[slots, classes])
        self.extras |= {"prov": prov, "targets": targets}

    def quota(self, n_classes: int) -> int:
        """Exemplars that each of `n_classes` may keep."""
        total = self.settings.total
        return total // max(n_classes, 1) if total is not None else int(self.settings.per_class or 0)

    def choose(
        self, candidates: Pool, features: Tensor, n_classes: int, generator: torch.Generator
    ) -> Tensor:
        """Rows to keep [M] of `candidates` (this memory's rows and new data), features [N, D].

        An old class keeps the first rows of its stored order (`truncate`) or is chosen from what is left of it
        (`reselect`); a new class is chosen. A class with fewer rows than its quota keeps all of them.
        """
        chooser, quota = CHOOSERS[self.settings.pick], self.quota(n_classes)
        chosen = []
        for rows in candidates.rows_by_class().values():
            stored = rows[candidates.slot[rows] >= 0]
            if len(stored) and self.settings.old == "truncate":
                chosen.append(stored[:quota])
            else:
                chosen.append(rows[chooser(features[rows], quota, generator)])
        return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64)

    def update(
        self,
        candidates: Pool,
        features: Tensor,
        n_classes: int,
        phase: int,
        generator: torch.Generator,
        **extras: Tensor,
    ) -> Tensor:
        """Hold what `choose` takes from `candidates`, features [N, D]; [M] chosen rows.

        `extras` {name: [N, w]} are stored beside; missing columns are NaN (0 for integers).
        """
        kept = self.choose(candidates, features, n_classes, generator)
        came = torch.full((len(candidates),), phase)
        is_old = candidates.slot >= 0
        came[is_old] = self.phase[candidates.slot[is_old]]
        extras = extras | self._labels(candidates)
        self._replace(candidates[kept], came[kept], {name: value[kept] for name, value in extras.items()})
        return kept

    def add(self, rows: Pool, phase: int, **extras: Tensor) -> None:
        """Append rows whatever the quota says: for policies that manage the whole set themselves."""
        extras = extras | self._labels(rows)
        joined = {
            name: stack_extras(self.extras.get(name), len(self), extras.get(name), len(rows))
            for name in self.extras.keys() | extras.keys()
        }
        pool = self.pool() + rows
        self._replace(pool, torch.cat([self.phase, torch.full((len(rows),), phase)]), joined)

    def keep(self, slots: Tensor) -> None:
        """Keep only these slots, in this order."""
        extras = {name: value[slots] for name, value in self.extras.items()}
        self._replace(self.pool()[slots], self.phase[slots], extras)

    def take(self, chosen: Pool, phase: int) -> None:
        """Hold exactly these rows: exemplars of now (with their extras) and, behind them, new data of `phase`."""
        old = chosen.slot >= 0
        self.keep(chosen.slot[old])
        self.add(chosen[~old], phase)

    def room(self, n_classes: int) -> int:
        """Exemplars that all classes together may keep."""
        total = self.settings.total
        return total if total is not None else self.quota(n_classes) * n_classes

    def _labels(self, rows: Pool) -> dict[str, Tensor]:
        """Columns `targets` and `prov` of rows that are stored: carried along or, for new data, captured."""
        if self._firewall is None:
            return {}
        is_new, n_classes = rows.slot < 0, self._firewall.hi
        labels = {
            "targets": torch.full((len(rows), n_classes), float("nan")),
            "prov": torch.zeros(len(rows), n_classes, dtype=torch.uint8),
        }
        captured = self._firewall.capture(rows.index[is_new])
        for name, column in labels.items():
            column[is_new] = captured[name]
            if not bool(is_new.all()):
                held = self.extras[name][rows.slot[~is_new]]
                column[~is_new, : held.shape[1]] = held
        return labels

    def _replace(self, pool: Pool, phase: Tensor, extras: dict[str, Tensor]) -> None:
        for name, value in extras.items():
            if len(value) != len(pool):
                raise ContractViolation(
                    f"Extra column {name!r} has {len(value)} rows for {len(pool)} exemplars."
                )
        self.index, self.quota_class, self.phase = pool.index.clone(), pool.quota.clone(), phase.clone()
        self.extras = {name: value.detach().cpu().clone() for name, value in extras.items()}

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "index": self.index, "quota": self.quota_class, "phase": self.phase, "extras": dict(self.extras)
        }  # fmt: skip

    def load_state(self, state: dict[str, Any]) -> None:
        self.index, self.quota_class, self.phase = state["index"], state["quota"], state["phase"]
        self.extras = dict(state["extras"])


def stack_extras(old: Tensor | None, n_old: int, new: Tensor | None, n_new: int) -> Tensor:
    """Two sets of rows of different widths, one below the other; gaps are NaN, or 0 for integer columns."""
    parts = [part for part in (old, new) if part is not None]
    width = max(part.shape[1] for part in parts)
    fill = float("nan") if parts[0].is_floating_point() else 0
    stacked = torch.full((n_old + n_new, width), fill, dtype=parts[0].dtype)
    if old is not None:
        stacked[:n_old, : old.shape[1]] = old
    if new is not None:
        stacked[n_old:, : new.shape[1]] = new.cpu()
    return stacked
