"""Whose word stands in a relabelled memory: each filled cell against the network of that phase, asked anew."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_multi_scenario, tiny_runner
from torch import Tensor

from imbcil.harness.batch import Sweep
from imbcil.harness.network.network import Network, freeze
from imbcil.harness.pools import Pool
from imbcil.harness.runner import Runner
from imbcil.harness.sweep import load_suite

BLOCK = torch.tensor([0, 0, 0, 1, 2, 2])  # phase of each column


def networks_of_each_phase(runner: Runner) -> list[Network]:
    nets = []
    for _ in range(3):
        runner._run_phase()
        nets.append(freeze(runner.learner.net))
    return nets


def said_by(net: Network, runner: Runner) -> Tensor:
    """Labels above one half [M, K] of the memory's images, from pixels, one image at a time."""
    images = runner.s.train_bank.test_images(runner.learner.memory.index)
    with torch.no_grad():
        return torch.cat([net(image[None]).logits for image in images]) > 0


def test_every_filled_cell_is_what_the_network_of_its_phase_says_of_the_image(tmp_path: Path) -> None:
    runner = tiny_runner("rebll", tmp_path, scenario=tiny_multi_scenario())
    said = [said_by(net, runner) for net in networks_of_each_phase(runner)]
    memory = runner.learner.memory
    checked = {2: 0, 3: 0}
    for row, (came, prov) in enumerate(zip(memory.phase.tolist(), memory.extras["prov"], strict=True)):
        for column, block in enumerate(BLOCK.tolist()):
            if prov[column] <= 1:
                continue
            speaker = (
                came - 1 if block < came else block
            )  # the past model of the row's phase, or the column's own
            found = bool(memory.extras["targets"][row, column])
            assert found == bool(said[speaker][row, column]), (row, column)
            checked[int(prov[column])] += 1
    assert min(checked.values()) >= 10


def test_a_phase_that_ends_looks_at_each_image_once_by_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = tiny_runner("rebll", tmp_path, scenario=tiny_multi_scenario())
    runner._run_phase()
    learner, asked = runner.learner, []
    sweep = learner.tools.sweep

    def counted(pool: Pool, net: Network | None = None, flip: bool = False) -> Sweep:
        asked.append(("past" if net is learner.state["old"] else "current", len(pool)))
        return sweep(pool, net, flip)

    monkeypatch.setattr(learner.tools, "sweep", counted)
    held = len(learner.memory)
    runner._run_phase()
    new, fresh = len(runner.s.scenario.phases[1].train), int((learner.memory.phase == 1).sum())
    assert asked == [("current", held + new), ("past", fresh)]


def test_false_positives_of_past_and_current_models_are_counted_apart(tmp_path: Path) -> None:
    runner = tiny_runner("rebll", tmp_path, scenario=tiny_multi_scenario())
    runner.run()
    memory, firewall = runner.learner.memory, runner.s.firewall
    assert firewall is not None
    truth, found = firewall.truth(memory.index)[0], runner.s.folder.records()[-1].metrics
    written = memory.extras["targets"] == 1
    for name, provenance in (("past", 2), ("current", 3)):
        cells = (memory.extras["prov"] == provenance) & (truth == 0)
        assert found[f"phase/relabel_{name}_negatives"] == cells.sum() > 0
        assert found[f"phase/relabel_{name}_fpr"] == pytest.approx(
            100 * float((written & cells).sum() / cells.sum())
        )
    both = [found[f"phase/relabel_{name}_negatives"] for name in ("past", "current")]
    assert sum(both) == found["phase/relabel_negatives"]


def test_the_ablation_has_every_rule_of_relabelling_for_each_memory() -> None:
    rules: dict[str, set[str]] = {}
    for row in load_suite("rebll-ablation").rows:
        if row.set["rebll.relabel"]:
            extra = {name.removeprefix("rebll.") for name in row.set} & {"quota", "confident"}
            rules.setdefault(row.set["memory.budget"], set()).add("+".join(extra) or "threshold")
    assert rules == {
        "1000": {"threshold", "quota", "confident"},
        "20/class": {"threshold", "quota", "confident"},
    }
