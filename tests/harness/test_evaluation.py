"""Evaluation: every predictor's scores of every row, in evaluation mode, independent of batches."""

from typing import Any

import numpy as np
import pytest
import torch
from test_images import bank
from torch import Tensor

from imbcil.harness import evaluation
from imbcil.harness.contract import Learner
from imbcil.harness.evaluation import evaluate, score_arrays
from imbcil.harness.network.network import ModuleSpec, NetSpec, Network
from imbcil.harness.network.runtime import Runtime, evaluation_batch
from imbcil.harness.pools import Pool
from imbcil.harness.tools import Tools

ROWS = torch.tensor([19, 3, 7, 0, 11, 12, 3])


class TwoScores(Learner):
    """A primary predictor that is not the head, and the head."""

    def scores(self, images: Tensor) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled()
        assert not any(module.training for module in self.net.modules())
        out = self.net(images)
        return {"nme": -out.logits.double(), "fc": self.net.calibrated(out, "test")}


def learner() -> TwoScores:
    torch.manual_seed(0)
    made = TwoScores(TwoScores.Config(), "two")
    made.state["net"] = Network(
        NetSpec(backbones=(ModuleSpec(kind="tiny"),), head=ModuleSpec(kind="linear")), Runtime()
    )
    made.net.grow(4)
    return made


def test_all_predictors_are_scored_in_the_order_of_the_rows():
    made = learner()
    scores = evaluate(made, bank(), ROWS)
    assert list(scores) == ["nme", "fc"]  # the primary one comes first
    with torch.no_grad():
        expected = made.net.eval()(bank().test_images(ROWS)).logits.numpy()
    for name, sign in (("nme", -1), ("fc", 1)):
        assert scores[name].dtype == np.float32
        assert scores[name].shape == (7, 4)
        np.testing.assert_allclose(scores[name], sign * expected, rtol=1e-5, atol=1e-5)


def test_scores_do_not_depend_on_where_a_batch_ends(monkeypatch: Any):
    whole = evaluate(learner(), bank(), ROWS)
    monkeypatch.setattr(evaluation, "evaluation_batch", lambda size: 3)
    parts = evaluate(learner(), bank(), ROWS)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-5, atol=1e-6)
        assert parts[name].shape == (7, 4)


def test_modes_and_statistics_are_as_before():
    made = learner()
    made.net.train()
    made.net.backbones[0].layer1.eval()
    modes = [module.training for module in made.net.modules()]
    weights = {name: value.clone() for name, value in made.net.state_dict().items()}
    evaluate(made, bank(), ROWS)
    assert [module.training for module in made.net.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in made.net.state_dict().items())


def test_no_rows_have_no_scores():
    assert evaluate(learner(), bank(), torch.empty(0, dtype=torch.int64)) == {}


def test_what_is_stored_names_split_rows_labels_and_predictors():
    scores = evaluate(learner(), bank(), ROWS)
    arrays = score_arrays("holdout", ROWS, bank().targets(ROWS), scores)
    assert set(arrays) == {"holdout_rows", "holdout_labels", "holdout/nme", "holdout/fc"}
    assert arrays["holdout_rows"].tolist() == ROWS.tolist()
    assert arrays["holdout_labels"].tolist() == [row % 3 for row in ROWS.tolist()]
    assert arrays["holdout/fc"] is scores["fc"]


# --- a learner's own passes over images ---------------------------------------------------------------------------


def tools(made: Learner) -> Tools:
    given = Tools(bank(), 0, lambda out: 2 * out.features)
    given.net = made.net
    return given


POOL = Pool.of_new(ROWS, ROWS % 3)


def test_a_sweep_gives_the_learners_embedding_logits_and_targets_of_every_row():
    made = learner()
    swept = tools(made).sweep(POOL)
    with torch.no_grad():
        out = made.net.eval()(bank().test_images(ROWS))
    torch.testing.assert_close(swept.features, 2 * out.features)
    torch.testing.assert_close(swept.logits, out.logits)
    assert swept.targets.tolist() == [row % 3 for row in ROWS.tolist()]
    assert not swept.features.requires_grad
    part = swept[torch.tensor([4, 0])]
    assert part.pool.index.tolist() == [11, 19]
    assert torch.equal(part.features, swept.features[[4, 0]])


def test_a_sweep_may_look_at_mirrored_images_or_through_another_network():
    made, other = learner(), learner()
    other.net.grow(1)
    with torch.no_grad():
        mirrored = made.net.eval()(bank().test_images(ROWS).flip(3)).logits
    torch.testing.assert_close(tools(made).sweep(POOL, flip=True).logits, mirrored)
    assert tools(made).sweep(POOL, net=other.net).logits.shape == (7, 5)


def test_a_sweep_over_nothing_has_the_right_widths():
    swept = tools(learner()).sweep(Pool.empty())
    assert (swept.features.shape, swept.logits.shape) == ((0, 16), (0, 4))


def test_batches_with_gradients_run_in_evaluation_mode_and_the_modes_return():
    made = learner()
    made.net.train()
    sizes = []
    with torch.no_grad():
        for images, targets in tools(made).grad_batches(POOL, 3, made.net):
            assert torch.is_grad_enabled()
            assert not made.net.training
            sizes.append((len(images), len(targets)))
    assert sizes == [(3, 3), (3, 3), (1, 1)]
    assert made.net.training


def test_what_a_learner_logs_is_kept_as_numbers_of_the_phase():
    given = tools(learner())
    values = torch.ones(3, dtype=torch.float64, requires_grad=True)
    given.log("alpha", 0.5)
    given.log_per_class("phi", values)
    with torch.no_grad():
        values.zero_()
    assert given.logged == {"alpha": 0.5}
    assert given.logged_per_class["phi"].tolist() == [1, 1, 1]
    assert given.logged_per_class["phi"].dtype == torch.float32


@pytest.mark.parametrize(("size", "images"), [(8, 500), (80, 500), (81, 487), (224, 63), (5000, 1)])
def test_a_batch_of_large_images_holds_fewer_of_them(size: int, images: int):
    assert evaluation_batch(size) == images
