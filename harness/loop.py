"""The only epoch loop and the only backward pass of the code base."""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imbcil.harness.base.errors import ContractViolation, RunStopped
from imbcil.harness.batch import Batch, Outputs
from imbcil.harness.composition import Plugins
from imbcil.harness.contract import Learner
from imbcil.harness.images import ImageBank
from imbcil.harness.labels import fill_pseudo
from imbcil.harness.optimiser import NamedOptimiser, Plateau
from imbcil.harness.pools import Pool
from imbcil.harness.samplers import Online, Rows, without_single_rows
from imbcil.harness.stages import Stage
from imbcil.harness.tools import evaluation_mode, seeded


@dataclass
class StagePosition:
    """How far a stage is: all that a checkpoint must know besides learner, plug-ins and optimiser."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)  # loss terms of this epoch so far, on the device
    plateau: Plateau = field(default_factory=Plateau)


@dataclass
class StageContext:
    """What one stage runs in. `key`: (seed, phase, stage name), the root of every draw. `after_step` and
    `after_epoch` are the runner's: checkpoints and progress."""

    learner: Learner
    plugins: Plugins
    stage: Stage
    pool: Pool
    bank: ImageBank
    n_classes: int
    key: tuple[object, ...]
    optimiser: NamedOptimiser
    position: StagePosition
    after_step: Callable[[int], None]
    after_epoch: Callable[[dict[str, float], float, int], None]
    counts: Tensor | None = None  # of the pool when the stage opened [n_classes]; None: of the pool as it is
    phases: int | None = None  # of the run, for messages


def train_stage(run: StageContext) -> None:
    """Train one stage from wherever `run.position` stands; each checkpoint resumes bit for bit."""
    stage, position = run.stage, run.position
    run.counts = run.pool.counts(run.n_classes) if run.counts is None else run.counts
    counts = run.counts.to(run.bank.device)
    stochastic = any(
        isinstance(module, nn.modules.dropout._DropoutNd) for module in run.learner.net.modules()
    )
    while position.epoch < stage.optim.epochs and not position.plateau.stopped:
        plan = epoch_plan(run, position.epoch)
        started, images = time.monotonic(), 0
        for step in range(position.step, len(plan)):
            run.optimiser.set_learning_rates(position.epoch, step, len(plan), position.plateau.scale)
            batch = training_batch(run, plan[step], position.epoch, step, len(plan), counts)
            batch = run.plugins.prepare(batch)
            with seeded(*run.key, "step", position.epoch, step) if stochastic else nullcontext():
                terms = train_step(run, batch)
            record(position.sums, terms)
            position.step = step + 1
            images += len(batch.images)
            run.after_step(len(batch.images))
        means = checked_means(position.sums, len(plan), run)
        if stage.optim.schedule == "plateau" and stage.val is not None and len(stage.val):
            position.plateau.update(validation_loss(run, position.epoch, counts), stage.optim)
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        run.after_epoch(means, time.monotonic() - started, images)


def train_step(run: StageContext, batch: Batch) -> dict[str, Tensor]:
    """One forward pass, one backward pass, one step. Returns the detached loss terms."""
    learner, stage = run.learner, run.stage
    out: Outputs = learner.net(batch.images)  # the one forward; autocast covers the backbones inside
    terms = named_terms((stage.loss or learner.loss)(batch, out), run)
    for plugin in run.plugins.items:
        extra = plugin.extra_loss(batch, out, learner)
        if twice := extra.keys() & terms.keys():
            raise ContractViolation(
                f"{plugin.name} adds the loss term {min(twice)!r}, which is there already."
            )
        terms |= extra
    check_terms(terms, run)
    run.optimiser.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    own = stage.owner == "learner"
    if own:
        learner.adjust_gradients(batch, out)
    for plugin in run.plugins.items:
        plugin.adjust_gradients(batch, out, learner)
    run.optimiser.step()
    if own:
        learner.after_step(batch)
    for plugin in run.plugins.items:
        plugin.after_step(batch)
    return {name: term.detach() for name, term in terms.items()}


def named_terms(terms: object, run: StageContext) -> dict[str, Tensor]:
    """A learner's answer as a dict. Raises ContractViolation for anything else."""
    if not isinstance(terms, Mapping):
        raise ContractViolation(
            f"The loss in stage {run.stage.name} of {run.learner.name} has to be a dict of named terms such as "
            f"{{'ce': ...}}, not {type(terms).__name__}."
        )
    return dict(terms)


def check_terms(terms: dict[str, Tensor], run: StageContext) -> None:
    """Raise ContractViolation naming learner and term unless there are terms, each one number, that can be learned
    from."""
    where = f"in stage {run.stage.name} of {run.learner.name}"
    if not terms:
        raise ContractViolation(f"The loss {where} has no term; return at least one, such as {{'ce': ...}}.")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.ndim:
            found = f"shape {list(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise ContractViolation(
                f"The loss term {name!r} {where} has to be a tensor with one number, not {found}; take its mean."
            )
    if not any(term.requires_grad for term in terms.values()):
        raise ContractViolation(
            f"No loss term {where} depends on what the stage trains; compute one from `out`, without detach()."
        )


def epoch_plan(run: StageContext, epoch: int) -> list[Rows]:
    """The epoch's batches, from its key alone: a resumed run makes the same plan and skips what is done."""
    generator = run.learner.tools.gen("order", *run.key[1:], epoch)
    sampler = run.stage.sampler.at(epoch / max(run.stage.optim.epochs, 1))
    plan = sampler.plan(run.pool, run.stage.optim.batch, generator)
    lonely = len(plan) > 1 and len(plan[-1].rows) == 1
    return without_single_rows(plan) if lonely and refuses_one_row(run.learner.net, run.bank) else plan


def refuses_one_row(net: nn.Module, bank: ImageBank) -> bool:
    """Whether training cannot take a batch of one image: a batch norm would have one value a channel, in a head or
    where the images are so small that a map has shrunk to one pixel."""
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if any(isinstance(norm, nn.BatchNorm1d) for norm in norms):
        return True
    if not norms:
        return False
    with torch.no_grad(), evaluation_mode(net):
        maps = net(torch.zeros(1, 3, bank.size, bank.size, device=bank.device)).maps
    return any(each.shape[-2:].numel() == 1 for each in maps)


def training_batch(run: StageContext, rows: Rows, epoch: int, step: int, steps: int, counts: Tensor) -> Batch:
    """Cut the rows' images from the bank and augment them; every draw is keyed by the step."""
    pool, stream = run.pool[rows.rows], rows.stream
    generator = run.learner.tools.gen("augment", *run.key[1:], epoch, step)
    if isinstance(run.stage.sampler, Online) and run.stage.sampler.replay and len(run.learner.memory):
        held = run.learner.memory.pool()
        drawn = held[torch.randperm(len(held), generator=generator)[: run.stage.sampler.replay]]
        stream = torch.cat([stream, torch.ones(len(drawn), dtype=stream.dtype)])
        pool = pool + drawn
    device = run.bank.device
    images = run.bank.train_images(pool.index, generator)
    targets, mask = batch_targets(run.learner, pool, images)
    return Batch(
        images=images,
        targets=targets,
        mask=mask,
        index=pool.index,
        slot=pool.slot,
        stream=stream.to(device),
        counts=counts,
        stage=run.stage.name,
        epoch=epoch,
        step=step,
        steps=steps,
        total=steps * run.stage.optim.epochs,
        extras=stored_extras(run.learner, pool.slot, device),
    )


def batch_targets(learner: Learner, pool: Pool, images: Tensor) -> tuple[Tensor, Tensor | None]:
    """Targets and mask on the images' device, after the label policy; pseudo-labels come from these very images."""
    targets, mask = learner.tools.targets(pool)
    targets = targets.to(images.device)
    if mask is None:
        return targets, None
    n_old = learner.net.n_classes - learner.net.head.splits[-1]
    if learner.tools.pseudo_labels and n_old:
        with torch.no_grad():
            return fill_pseudo(targets, pool.slot, n_old, images, learner.pseudo_targets)
    return targets, mask.to(images.device)


def stored_extras(learner: Learner, slot: Tensor, device: torch.device) -> dict[str, Tensor]:
    """The memory's extra columns for a batch [B, w]; NaN (0 for integers) in rows that are not exemplars."""
    extras = {}
    for name, column in learner.memory.extras.items():
        rows = (
            column[slot.clamp(min=0)].clone() if len(column) else column.new_zeros(len(slot), column.shape[1])
        )
        rows[slot < 0] = float("nan") if rows.is_floating_point() else 0
        extras[name] = rows.to(device)
    return extras


def record(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add up on the device: reading a value here would stall a GPU at each step."""
    for name, term in terms.items():
        if name in sums:
            sums[name] += term
        else:
            sums[name] = term.clone()


def checked_means(sums: dict[str, Tensor], steps: int, run: StageContext) -> dict[str, float]:
    """Mean of each term over the epoch. Raises RunStopped naming phase, epoch and terms if any is not finite.

    One term that overflows spoils the network and with it the others: all that did are named.
    """
    values = torch.stack(list(sums.values())).tolist() if sums else []
    bad = [name for name, value in zip(sums, values, strict=True) if not math.isfinite(value)]
    if bad:
        listed = ", ".join(map(repr, bad))
        what = f"The loss term {listed} of {run.learner.name} is"
        if len(bad) > 1:
            what = f"The loss terms {listed} of {run.learner.name} are"
        phase = f"phase {int(str(run.key[1])) + 1}" + (f" of {run.phases}" if run.phases else "")
        raise RunStopped(
            f"{what} not finite in {phase}, stage {run.stage.name}, epoch {run.position.epoch + 1}. "
            f"The last good checkpoint stays; try {way_out(bad, run)}."
        )
    return {name: value / max(steps, 1) for name, value in zip(sums, values, strict=True)}


def way_out(terms: list[str], run: StageContext) -> str:
    """What to try when these terms are not finite: what their owners say of them, and a smaller learning rate."""
    parts = (run.learner, *run.plugins.items)
    remedies = [part.remedies[term] for term in terms for part in parts if term in part.remedies]
    return " or ".join([*remedies, "a smaller learning rate (--set train.lr=...)"])


@torch.no_grad()
def validation_loss(run: StageContext, epoch: int, counts: Tensor) -> float:
    """Mean over images of the stage's loss on its validation pool, in evaluation mode."""
    pool = run.stage.val
    assert pool is not None
    total = torch.zeros((), device=run.bank.device)
    with evaluation_mode(run.learner.net):
        for rows in torch.split(torch.arange(len(pool)), run.stage.optim.batch):
            part = pool[rows]
            images = run.bank.test_images(part.index)
            targets, mask = batch_targets(run.learner, part, images)
            batch = Batch(
                images=images,
                targets=targets,
                mask=mask,
                index=part.index,
                slot=part.slot,
                stream=torch.zeros_like(part.slot),
                counts=counts,
                stage=run.stage.name,
                epoch=epoch,
                step=0,
                steps=1,
                total=run.stage.optim.epochs,
            )
            terms = (run.stage.loss or run.learner.loss)(batch, run.learner.net(batch.images))
            total += torch.stack(list(terms.values())).sum() * len(part)
    return float(total) / len(pool)


def position_to_state(position: StagePosition) -> dict[str, Any]:
    return {
        "epoch": position.epoch, "step": position.step, "sums": position.sums, "plateau": position.plateau.to_state()
    }  # fmt: skip


def position_from_state(state: dict[str, Any]) -> StagePosition:
    return StagePosition(state["epoch"], state["step"], state["sums"], Plateau(**state["plateau"]))
