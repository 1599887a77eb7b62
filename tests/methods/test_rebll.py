"""RebLL (reconstruction): decay forms, their fixed points, relabelling with provenance, and what it reduces to."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from bare import bare
from steps import batch_of, begun, outputs
from tiny import all_scores, tiny_multi_scenario, tiny_runner
from torch import Tensor

from imbcil.harness.base.errors import BadInput
from imbcil.harness.batch import Batch, Outputs
from imbcil.harness.label_quality import recovery
from imbcil.harness.labels import guessed_labels, within_quota
from imbcil.harness.losses import mean_over, soft_bce, visible_bce
from imbcil.harness.sweep import load_suite
from imbcil.methods.rebll import RebLL, RebLLConfig


def with_settings(**settings: Any) -> Any:
    learner = bare("rebll", 1, **settings)
    learner.state["exponent"] = torch.tensor(float(settings.get("exponent", 1.0)))
    return learner


def resting_point(learner: Any, q: float) -> float:
    """The student's probability where distilling from a teacher at q no longer moves it: bisection on the slope."""
    teacher = torch.tensor([[math.log(q / (1 - q))]], dtype=torch.float64)
    low, high = -15.0, 15.0
    for _ in range(60):
        middle = (low + high) / 2
        z = torch.tensor([[middle]], dtype=torch.float64, requires_grad=True)
        learner.distilled(z, teacher).backward()
        assert z.grad is not None
        low, high = (low, middle) if float(z.grad) > 0 else (middle, high)
    return 1 / (1 + math.exp(-(low + high) / 2))


def chain(**settings: Any) -> list[float]:
    """The probability of a confident positive over eight phases: seven distillations from 0.95."""
    learner, found = with_settings(**settings), [0.95]
    for _ in range(7):
        found.append(resting_point(learner, found[-1]))
    return found


@pytest.mark.parametrize(
    ("settings", "last"),
    [
        ({"exponent": 0.0}, 0.95),
        ({"exponent": 1.0}, 0.95),
        ({"exponent": 4.0}, 0.95),
        ({"form": "exp", "exponent": 2.0}, 0.95),
        ({"scope": "positive", "exponent": 1.0}, 0.195),
        ({"scope": "positive", "exponent": 2.0}, 0.099),
        ({"scope": "positive", "exponent": 4.0}, 0.050),
        ({"scope": "positive", "source": "teacher", "form": "exp", "exponent": 1.0}, 0.218),
        ({"scope": "positive", "source": "teacher", "form": "exp", "exponent": 2.0}, 0.081),
    ],
)
def test_the_fixed_points_of_eight_phases(settings: dict[str, Any], last: float):
    found = chain(**settings)
    print(settings, " -> ".join(f"{p:.3f}" for p in found))
    assert found[-1] == pytest.approx(last, abs=6e-4)


def test_the_teachers_power_decay_caps_probabilities_at_one_half():
    learner = with_settings(scope="positive", source="teacher", exponent=1.0)
    assert resting_point(learner, 0.95) == pytest.approx(0.95 / 1.95, abs=1e-6)  # q / (1 + q)
    assert resting_point(learner, 0.999) < 0.5


def test_a_form_that_reverses_the_ranking_is_refused():
    reversing = {"scope": "positive", "source": "teacher", "form": "power", "exponent": 2.0}
    with pytest.raises(BadInput, match="reverses the ranking of probabilities from exponent 2"):
        bare("rebll", 1, **reversing)
    learner = with_settings(**{**reversing, "exponent": 1.0})
    learner.state["exponent"] = torch.tensor(2.0)
    assert resting_point(learner, 0.95) < resting_point(learner, 0.5)  # why


def test_only_the_positive_half_of_the_classification_loss_decays(tmp_path: Path):
    runner, phase = begun(
        "rebll", tmp_path, 1, scenario=tiny_multi_scenario(), settings={"rebll.exponent": 2.0}
    )
    batch = batch_of(runner, phase.new)
    batch.targets[0, 3] = 0.0  # one negative
    logits = torch.randn(len(phase.new), 4, generator=torch.Generator().manual_seed(2))
    p = logits[:, 3].double().sigmoid()
    y = batch.targets[:, 3].double()
    expected = 0.5 * (-((1 - p) ** 2) * y * p.log() - (1 - y) * (1 - p).log()).mean()
    found = runner.learner.loss(batch, outputs(logits))["cls"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_element_scope_weighs_whole_classes_by_the_teachers_confidence():
    learner = with_settings(exponent=2.0)
    student, teacher = torch.tensor([[0.3, -1.0]]), torch.tensor([[3.0, -2.0]])
    p, q = student.double().sigmoid(), teacher.double().sigmoid()
    cells = (1 - q) ** 2 * -(q * p.log() + (1 - q) * (1 - p).log())
    assert float(learner.distilled(student, teacher)) == pytest.approx(float(cells.mean()), rel=1e-6)


def plain_loss(self: RebLL, batch: Batch, out: Outputs) -> dict[str, Tensor]:
    """Binary cross-entropy and soft-target distillation, written without a decay."""
    assert batch.mask is not None
    cells = visible_bce(out.logits, batch.targets)
    new, old = (batch.slot < 0).unsqueeze(1), self.teacher_logits(batch)
    terms = {"cls": mean_over(cells, batch.mask & new)}
    if old is not None:
        kd = soft_bce(out.logits[:, : old.shape[1]], old)
        terms = {"cls": 0.5 * terms["cls"], "kd": 0.5 * kd}
    if len(self.memory):
        terms["memory"] = mean_over(cells, batch.mask & ~new)
    batch.scratch["p"] = out.logits
    return terms


@pytest.mark.parametrize("form", ["power", "exp"])
@pytest.mark.parametrize("scope", ["element", "positive"])
def test_exponent_zero_without_relabelling_is_bce_and_distillation_bit_for_bit(
    form: str, scope: str, tmp_path: Path, monkeypatch: Any
):
    settings = {"rebll.exponent": 0.0, "rebll.relabel": False, "rebll.form": form, "rebll.scope": scope}
    mine = tiny_runner("rebll", tmp_path / "mine", scenario=tiny_multi_scenario(), settings=settings)
    mine.run()
    monkeypatch.setattr(RebLL, "loss", plain_loss)
    theirs = tiny_runner("rebll", tmp_path / "theirs", scenario=tiny_multi_scenario(), settings=settings)
    theirs.run()
    weights = theirs.learner.net.state_dict()
    for name, value in mine.learner.net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for name, scores in all_scores(mine.s.folder).items():
        assert (scores == all_scores(theirs.s.folder)[name]).all(), name


def finished(store: Path, **settings: Any) -> Any:
    named = {f"rebll.{name}": value for name, value in settings.items() if "." not in name}
    runner = tiny_runner("rebll", store, scenario=tiny_multi_scenario(), settings=named)
    runner.run()
    return runner


def test_both_triangles_are_filled_and_every_cell_remembers_by_whom(tmp_path: Path):
    memory = finished(tmp_path).learner.memory
    block = torch.tensor([0, 0, 0, 1, 2, 2])  # phase of each column
    prov, came = memory.extras["prov"], memory.phase.unsqueeze(1)
    ignored = prov == 0
    assert torch.equal(prov[block < came], torch.full_like(prov[block < came], 2))  # past model
    assert torch.equal(
        prov[block > came], torch.full_like(prov[block > came], 3)
    )  # model of the column's phase
    assert bool(((prov == 1) | ignored)[block == came].all())
    assert set(memory.visible_targets()[prov > 1].unique().tolist()) <= {0.0, 1.0}


def test_soft_labels_and_unsure_cells(tmp_path: Path):
    soft = finished(tmp_path / "soft", labels="soft").learner.memory
    values = soft.visible_targets()[soft.extras["prov"] > 1]
    assert bool(((values > 0) & (values < 1)).any())
    sure = finished(tmp_path / "sure", confident=True, threshold=0.95).learner.memory
    assert int((sure.extras["prov"] == 0).sum()) > int((soft.extras["prov"] == 0).sum())


def test_without_the_policy_or_with_the_switch_off_nothing_is_relabelled(tmp_path: Path):
    off = finished(tmp_path / "off", relabel=False).learner.memory
    assert not bool((off.extras["prov"] > 1).any())
    runner = tiny_runner(
        "rebll",
        tmp_path / "policy",
        scenario=tiny_multi_scenario(),
        settings={"labels.memory": "capture_only"},
    )
    runner.run()
    assert not bool((runner.learner.memory.extras["prov"] > 1).any())


def test_relabelling_every_epoch_feeds_the_epochs_after_it(tmp_path: Path):
    late = finished(tmp_path / "late").learner.net.state_dict()
    early = finished(tmp_path / "early", when="epoch").learner.net.state_dict()
    assert any(not torch.equal(value, early[name]) for name, value in late.items())


def test_a_quota_keeps_the_most_probable_positives():
    p = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.7, 0.9], [0.1, 0.3]])
    labels = within_quota((p > 0.5).float(), p, torch.tensor([0.5, 0.1]))
    assert labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]


def test_probabilities_become_labels_as_asked_for():
    p = torch.tensor([[0.9, 0.2], [0.8, 0.6], [0.55, 0.9]])
    assert guessed_labels(p, 0.7).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert guessed_labels(p, 0.7, prior=torch.tensor([0.3, 1.0])).tolist() == [[1, 0], [0, 0], [0, 1]]
    sure = guessed_labels(p, 0.7, soft=True, confident=True)  # from 0.3 to 0.7 nothing is known
    assert torch.equal(sure.isnan(), torch.tensor([[False, False], [False, True], [True, False]]))
    assert torch.equal(sure[~sure.isnan()], p[~sure.isnan()])


def test_the_adaptive_exponent_follows_the_gap_of_probabilities(tmp_path: Path):
    runner, phase = begun(
        "rebll", tmp_path, 0, scenario=tiny_multi_scenario(),
        settings={"rebll.exponent_kind": "adaptive", "rebll.gap": 0.2, "rebll.rate": 0.5},
    )  # fmt: skip
    learner, batch = runner.learner, batch_of(runner, phase.new)
    logits = torch.where(batch.targets >= 0.5, 2.0, -1.0)
    learner.loss(batch, outputs(logits))
    learner.after_step(batch)
    high, low = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    assert float(learner.state["exponent"]) == pytest.approx(1 + 0.5 * (high - low - 0.2), rel=1e-5)


def test_recovery_counts_hidden_cells_only():
    claimed = torch.tensor([[True, True, False], [True, False, False]])
    truth = torch.tensor([[True, False, True], [True, True, False]])
    hidden = torch.tensor([[True, True, True], [False, True, True]])
    found = recovery(claimed, truth, hidden)
    assert found == {
        "precision": 50.0,
        "recall": pytest.approx(100 / 3),
        "fpr": 50.0,
        "positives": 3,
        "negatives": 2,
    }


def test_the_quality_of_relabelling_is_measured(tmp_path: Path):
    runner = finished(tmp_path)
    metrics = runner.s.folder.records()[-1].metrics
    memory, truth = runner.learner.memory, runner.s.firewall.truth(runner.learner.memory.index)[0]
    filled = memory.extras["prov"] > 1
    false = filled & (memory.extras["targets"] == 1) & (truth == 0)
    hidden_negatives = (memory.extras["prov"] != 1) & (truth == 0)
    assert metrics["phase/relabel_negatives"] == hidden_negatives.sum()
    assert metrics["phase/relabel_fpr"] == pytest.approx(
        100 * float(false.sum() / hidden_negatives.sum()), rel=1e-5
    )


def test_the_ablation_has_every_form_and_memory():
    rows = [row.set for row in load_suite("rebll-ablation").rows]
    assert {row["memory.budget"] for row in rows} == {"0", "1000", "20/class"}
    assert all(not row["rebll.relabel"] for row in rows if row["memory.budget"] == "0")
    for row in rows:
        settings = {
            name.removeprefix("rebll."): value for name, value in row.items() if name.startswith("rebll.")
        }
        RebLLConfig(**settings)
    assert {(row.get("rebll.exponent"), row["rebll.relabel"]) for row in rows} >= {
        (0, False),
        (0, True),
        (1, True),
    }
