"""Samplers: in which order a stage draws rows from its pool. Each plans one epoch from a keyed generator."""

from dataclasses import dataclass

import torch
from torch import Tensor

from imbcil.harness.pools import Pool


@dataclass(frozen=True)
class Rows:
    """One batch as row numbers of the pool [B], and the stream that each row belongs to [B]."""

    rows: Tensor
    stream: Tensor


class _Steady:
    """A sampler that draws alike in every epoch."""

    def at(self, progress: float) -> "Sampler":
        """The sampler of an epoch that starts at `progress` (0..1) of the stage."""
        return self  # type: ignore[return-value]


@dataclass(frozen=True)
class Shuffle(_Steady):
    """Every row once an epoch, in random order; the last batch may be smaller."""

    def plan(self, pool: Pool, batch: int, generator: torch.Generator) -> list[Rows]:
        order = torch.randperm(len(pool), generator=generator)
        return [_one_stream(rows) for rows in _chunks(order, batch)]


@dataclass(frozen=True)
class ClassAware(_Steady):
    """Draw a class uniformly, then `per` of its rows; an epoch is as long as `Shuffle`'s.

    Source: Long-Tailed-CIL's second stage (4 rows per drawn class). Classes and, within each class, rows
    are cycled in random order, so that none is left out by chance.
    """

    per: int = 1

    def plan(self, pool: Pool, batch: int, generator: torch.Generator) -> list[Rows]:
        by_class = list(pool.rows_by_class().values())
        if not by_class:
            return []
        draws = -(-len(pool) // self.per)
        classes = _cycle(torch.arange(len(by_class)), draws, generator)
        wanted = torch.bincount(classes, minlength=len(by_class)) * self.per
        supply = [_cycle(rows, int(n), generator) for rows, n in zip(by_class, wanted, strict=True)]
        taken = [0] * len(by_class)
        order = []
        for label in classes.tolist():
            order.append(supply[label][taken[label] : taken[label] + self.per])
            taken[label] += self.per
        return [_one_stream(rows) for rows in _chunks(torch.cat(order)[: len(pool)], batch)]


@dataclass(frozen=True)
class Weighted(_Steady):
    """Draw rows with replacement so that class c has a share proportional to n_c ** q (q = 1: as they are,
    0: uniform over classes), mixed with `natural` times its natural share. Source: Kang et al. 2020, section 3."""

    q: float = 0.0
    natural: float = 0.0

    def plan(self, pool: Pool, batch: int, generator: torch.Generator) -> list[Rows]:
        if not len(pool):
            return []
        counts = torch.bincount(pool.quota).double()
        weight = counts.clamp(min=1).pow(self.q - 1)
        if self.natural:
            weight = (1 - self.natural) * weight / (weight * counts).sum() + self.natural / counts.sum()
        order = torch.multinomial(weight[pool.quota], len(pool), replacement=True, generator=generator)
        return [_one_stream(rows) for rows in _chunks(order, batch)]


@dataclass(frozen=True)
class Progressive:
    """From the natural shares to equal ones: epoch t of T draws class c with (1 - t/T) n_c / N + (t/T) / C. Source:
    Kang et al. 2020, section 3."""

    def at(self, progress: float) -> "Sampler":
        return Weighted(natural=1 - progress)


@dataclass(frozen=True)
class Deferred:
    """Every row once an epoch until `start` of the stage is over, then `Weighted(q)`. Source: Cao et al. 2019, whose
    deferred re-weighting this is with sampling in the place of weights."""

    start: float = 0.8
    q: float = 0.0

    def at(self, progress: float) -> "Sampler":
        return Weighted(self.q) if progress >= self.start else Shuffle()


@dataclass(frozen=True)
class Streams(_Steady):
    """New data (stream 0) and memory (streams 1 to `draws`) side by side in each batch: `batch` new rows and,
    per draw, batch / ratio memory rows that cycle on their own.

    Source: SS-IL (128 + 32, ratio 4); DER++ takes two draws. `drop_last` leaves out the last partial
    batch of new data, as the released SS-IL port does.
    """

    draws: int = 1
    ratio: float = 4.0
    drop_last: bool = False

    def plan(self, pool: Pool, batch: int, generator: torch.Generator) -> list[Rows]:
        new = torch.nonzero(pool.slot < 0).flatten()
        old = torch.nonzero(pool.slot >= 0).flatten()
        chunks = _chunks(new[torch.randperm(len(new), generator=generator)], batch)
        if self.drop_last:
            chunks = [chunk for chunk in chunks if len(chunk) == batch]
        replay = min(max(round(batch / self.ratio), 1), len(old)) if len(old) else 0
        streams = [_cycle(old, replay * len(chunks), generator) for _ in range(self.draws)]
        plans = []
        for number, chunk in enumerate(chunks):
            replays = [stream[number * replay : (number + 1) * replay] for stream in streams]
            marks = [torch.full((len(part),), place) for place, part in enumerate([chunk, *replays])]
            plans.append(Rows(torch.cat([chunk, *replays]), torch.cat(marks)))
        return plans


@dataclass(frozen=True)
class Online(_Steady):
    """New data once, in random order; beside each batch `replay` rows that the loop draws from the memory
    as it stands at that step, which the learner may change in `after_step`."""

    replay: int = 0

    def plan(self, pool: Pool, batch: int, generator: torch.Generator) -> list[Rows]:
        new = torch.nonzero(pool.slot < 0).flatten()
        return [
            _one_stream(rows) for rows in _chunks(new[torch.randperm(len(new), generator=generator)], batch)
        ]


Sampler = Shuffle | ClassAware | Weighted | Streams | Online  # draw a plan
SamplerPlan = Sampler | Progressive | Deferred  # what a stage names; `at` an epoch it is one of the above


def without_single_rows(plan: list[Rows]) -> list[Rows]:
    """Merge a last batch of one row into the one before: one-dimensional BatchNorm cannot train on it."""
    if len(plan) < 2 or len(plan[-1].rows) > 1:
        return plan
    *head, before, last = plan
    return [*head, Rows(torch.cat([before.rows, last.rows]), torch.cat([before.stream, last.stream]))]


def _chunks(order: Tensor, batch: int) -> list[Tensor]:
    return list(torch.split(order, batch)) if len(order) else []


def _one_stream(rows: Tensor) -> Rows:
    return Rows(rows, torch.zeros_like(rows))


def _cycle(items: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` items: whole random permutations one after the other, the last one cut."""
    if not len(items) or not count:
        return items[:0]
    rounds = -(-count // len(items))
    return torch.cat([items[torch.randperm(len(items), generator=generator)] for _ in range(rounds)])[:count]
