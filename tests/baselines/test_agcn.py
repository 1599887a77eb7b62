"""AGCN's graph from counted labels, its nodes, its loss, and word vectors that rest."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from steps import batch_of, begun
from tiny import MULTI_ORDER, MULTI_TRAIN, tiny_multi_scenario, tiny_runner

from imbcil.baselines.agcn import AGCN, AGCNConfig, AGCNHead
from imbcil.harness.base.config import validated
from imbcil.harness.base.errors import BadInput
from imbcil.harness.label_graph import across, conditional, linked, normalised

D = torch.float64
SMALL = {"agcn.width": 8, "agcn.hidden": 16, "agcn.nodes": 10.0}
NAMES = [f"class {label}" for label in MULTI_ORDER]


def test_conditional_counts_are_shares_among_images_where_the_other_label_is_known():
    positive = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 0]], dtype=D)
    known = torch.ones(4, 3, dtype=D)
    known[3, 0], positive[3, 0] = 0, 0  # ignored there
    found = conditional(positive, known)
    # P(0 | 1): images 0, 2 and 3 have label 1, in 0 and 2 label 0 is known, image 0 has it
    assert found.tolist() == [[0, 1 / 2, 0], [1 / 2, 0, 1], [0, 1 / 3, 0]]


def test_links_across_phases_come_from_soft_labels_and_go_back_by_bayes():
    soft = torch.tensor([[0.8, 0.1], [0.2, 0.1], [0.5, 0.4]], dtype=D)
    positive = torch.tensor([[1, 0], [1, 1], [0, 0]], dtype=D)
    forth, back = across(soft, positive, torch.ones(3, 2, dtype=D))
    torch.testing.assert_close(forth, torch.tensor([[0.5, 0.2], [0.1, 0.1]], dtype=D))
    for old in range(2):
        for new in range(2):
            prior = positive[:, new].mean() / soft[:, old].mean()  # P(j | i) = P(i | j) P(j) / P(i)
            assert float(back[new, old]) == pytest.approx(float(forth[old, new] * prior))


def test_a_label_without_an_image_has_no_link():
    nothing = torch.zeros(3, 2, dtype=D)
    assert not conditional(nothing, torch.ones(3, 2, dtype=D)).any()
    assert not any(
        part.any() for part in across(torch.rand(3, 2, dtype=D), nothing, torch.ones(3, 2, dtype=D))
    )


def test_links_from_the_threshold_on_share_the_scale_of_their_column():
    shares = torch.tensor([[0.0, 0.4, 0.1], [0.9, 0.0, 0.0], [0.5, 0.3, 0.0]], dtype=D)
    expected = [[0, 0.25, 0], [0.125, 0, 0], [0.125, 0, 0]]
    torch.testing.assert_close(linked(shares, 0.4, 0.25), torch.tensor(expected, dtype=D))


def test_a_graph_is_normalised_by_its_row_sums_on_both_sides():
    graph = torch.tensor([[1.0, 3.0], [0.25, 0.0]], dtype=D)
    found = normalised(graph)
    for row in range(2):
        for column in range(2):
            scale = math.sqrt(graph[row].sum() * graph[column].sum())
            assert float(found[row, column]) == pytest.approx(float(graph[column, row]) / scale)


def test_classifiers_are_two_graph_layers_over_the_nodes_inputs():
    torch.manual_seed(0)
    head = AGCNHead(6, width=5, hidden=7)
    head.grow(2)
    head.grow(1)
    head.graph = torch.rand(3, 3)
    inputs = torch.cat([block.weight for block in head.blocks])
    hidden = head.graph @ inputs @ head.first
    nodes = head.graph @ torch.where(hidden > 0, hidden, 0.2 * hidden) @ head.second
    features = torch.randn(4, 6)
    out = head(features, [])
    torch.testing.assert_close(out["nodes"], nodes)
    torch.testing.assert_close(out["logits"], features @ nodes.T)
    assert [tuple(block.weight.shape) for block in head.blocks] == [(2, 5), (1, 5)]


def counted(first: int, second: int, rows: list[str]) -> float:
    """P(first | second) over images that are listed with their classes."""
    having = [row for row in rows if str(second) in row]
    return sum(str(first) in row for row in having) / len(having)


def test_the_graph_counts_visible_labels_alone_and_keeps_its_old_block(tmp_path: Path):
    runner, phase = begun(
        "agcn", tmp_path, 2, scenario=tiny_multi_scenario(), settings={**SMALL, "agcn.edges": "conditional"}
    )
    learner: Any = runner.learner
    graph, old = learner.net.head.graph, learner.state["old"].head.graph
    assert torch.equal(graph[:4, :4], old)
    new = [row for row in MULTI_TRAIN if "4" in row or "5" in row]
    block = torch.tensor([[1, counted(4, 5, new)], [counted(5, 4, new), 1]])
    torch.testing.assert_close(graph[4:, 4:], normalised(block))
    q = learner.tools.sweep(phase.new, learner.state["old"]).logits.sigmoid()
    has = torch.tensor([["4" in row, "5" in row] for row in new]).float()
    torch.testing.assert_close(graph[:4, 4:], q.T @ has / has.sum(0))
    torch.testing.assert_close(graph[4:, :4], (q.T @ has / q.sum(0).unsqueeze(1)).T)


def test_an_ignored_label_is_no_label(tmp_path: Path):
    """The tiny scenario ignores class 1 in its first image, one of class 0."""
    runner, _ = begun(
        "agcn", tmp_path, 0, scenario=tiny_multi_scenario(), settings={**SMALL, "agcn.edges": "conditional"}
    )
    graph = runner.learner.net.head.graph
    rows = [row for row in MULTI_TRAIN if set(row) & set("012")]
    shares = [
        [counted(i, j, rows[1:] if (i, j) == (1, 0) else rows) if i != j else 1.0 for j in range(3)]
        for i in range(3)
    ]
    torch.testing.assert_close(graph, normalised(torch.tensor(shares)))


def test_the_loss_weighs_new_labels_old_labels_and_old_nodes(tmp_path: Path):
    runner, phase = begun("agcn", tmp_path, scenario=tiny_multi_scenario(), settings=SMALL)
    learner: Any = runner.learner
    batch = batch_of(runner, phase.new)
    out, teacher = learner.net.eval()(batch.images), learner.state["old"](batch.images)
    terms = {name: float(term.detach()) for name, term in learner.loss(batch, out).items()}
    p, q = out.logits.detach().double().sigmoid(), teacher.logits.double().sigmoid()
    known = torch.where(batch.mask, batch.targets, 0.0).double()
    cells = -(known * p.log() + (1 - known) * (1 - p).log())[batch.mask]
    assert terms["ce"] == pytest.approx(0.07 * float(cells.mean()), rel=1e-5)
    soft = -(q * p[:, :3].log() + (1 - q) * (1 - p[:, :3]).log())
    assert terms["kd"] == pytest.approx(0.93 * float(soft.mean()), rel=1e-5)
    moved = (learner.net.head.weight[:3] - learner.state["old"].head.weight).square().mean()
    assert terms["nodes"] == pytest.approx(10 * float(moved.detach()), rel=1e-5, abs=1e-9)
    assert AGCNConfig().nodes == 1e5


def write_words(path: Path, names: list[str], width: int = 8) -> torch.Tensor:
    vectors = torch.randn(len(names), width, generator=torch.Generator().manual_seed(5))
    lines = [f"{name}\t{' '.join(map(repr, row))}" for name, row in zip(names, vectors.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return vectors


def test_given_word_vectors_are_the_nodes_inputs_and_rest(tmp_path: Path):
    vectors = write_words(tmp_path / "words.txt", NAMES)
    runner = tiny_runner(
        "agcn", tmp_path / "store", scenario=tiny_multi_scenario(),
        settings={**SMALL, "agcn.words": str(tmp_path / "words.txt")},
    )  # fmt: skip
    runner.run()
    inputs = torch.cat([block.weight.detach() for block in runner.learner.net.head.blocks])
    torch.testing.assert_close(inputs, vectors)


def test_learned_inputs_move(tmp_path: Path):
    runner, phase = begun("agcn", tmp_path, scenario=tiny_multi_scenario(), settings=SMALL)
    before = runner.learner.net.head.blocks[-1].weight.detach().clone()
    runner._run_stage(phase, runner.plugins.stages(phase, runner.learner)[0])
    assert bool((runner.learner.net.head.blocks[-1].weight != before).all())


def test_word_vectors_that_do_not_suit_the_classes_are_refused_before_training(tmp_path: Path):
    write_words(tmp_path / "words.txt", NAMES[:-1])
    cfg = validated(AGCNConfig, {"words": str(tmp_path / "words.txt"), "width": 8}, "agcn")
    AGCN.check_classes(cfg, NAMES[:-1])
    with pytest.raises(BadInput, match=rf"words\.txt has no vector for the class '{NAMES[-1]}'; add a line"):
        AGCN.check_classes(cfg, NAMES)
    wide = validated(AGCNConfig, {"words": str(tmp_path / "words.txt")}, "agcn")
    with pytest.raises(BadInput, match=r"agcn\.width = 300, but .* of 8 numbers; set agcn\.width=8"):
        AGCN.check_classes(wide, NAMES[:-1])
