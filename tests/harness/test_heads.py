"""Heads: blocks per phase, old logits left alone, cosine logits by definition, norms by class."""

import pytest
import torch
import torch.nn.functional as F

from imbcil.harness.base.errors import UnknownName
from imbcil.harness.network.heads import HEADS, Block, CosineHead, Head, LinearHead, build_head, register_head

FEATURES = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def grown(head: Head, *splits: int) -> Head:
    torch.manual_seed(1)
    for classes in splits:
        head.grow(classes)
    return head


def logits(head: Head, features: torch.Tensor = FEATURES) -> torch.Tensor:
    return head(features, [])["logits"]


def test_linear_logits_are_a_matrix_product_over_all_blocks():
    head = grown(LinearHead(4), 3, 1, 2)
    expected = torch.stack(
        [FEATURES @ row + bias for row, bias in zip(head.weight, head.bias, strict=True)], 1
    )
    torch.testing.assert_close(logits(head), expected)
    assert logits(head).shape == (5, 6)


def test_a_head_may_go_without_a_bias():
    head = grown(LinearHead(4, bias=False), 2)
    assert head.bias is None
    assert [name for name, _ in head.named_parameters()] == ["blocks.0.weight"]
    torch.testing.assert_close(logits(head), FEATURES @ head.weight.T)


def test_cosine_logits_are_the_scaled_cosine_and_the_plain_one_comes_beside():
    head = grown(CosineHead(4, scale=7.0), 2, 1)
    out = head(FEATURES * 100, [])
    expected = F.cosine_similarity(FEATURES[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(out["cos"], expected)
    torch.testing.assert_close(out["logits"], 7 * expected)
    assert head.bias is None


def test_the_cosine_scale_is_learnt():
    head = grown(CosineHead(4), 2)
    logits(head).sum().backward()
    assert float(head.scale.grad) == pytest.approx(float(logits(head).detach().sum()), rel=1e-5)


@pytest.mark.parametrize("head", [LinearHead(4), CosineHead(4)])
def test_growing_adds_a_block_and_leaves_old_logits_and_parameters_alone(head: Head):
    grown(head, 3)
    before, names = logits(head), dict(head.named_parameters())
    head.grow(2)
    assert torch.equal(logits(head)[:, :3], before) or torch.allclose(logits(head)[:, :3], before, rtol=1e-6)
    assert all(dict(head.named_parameters())[name] is value for name, value in names.items())
    assert head.splits == [3, 2]


def test_a_fresh_block_is_drawn_as_torchs_linear_layer():
    torch.manual_seed(5)
    ours = Block(400, 64, bias=True)
    theirs = torch.nn.Linear(64, 400)
    for mine, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert float(mine.abs().max()) <= 1 / 8
        assert float(mine.std()) == pytest.approx(float(other.std()), rel=0.15)


def test_new_blocks_take_the_dtype_of_the_old_ones():
    head = grown(LinearHead(4), 2).double()
    head.grow(1)
    assert head.blocks[1].weight.dtype == torch.float64


def test_slices_are_the_class_ranges_of_the_phases():
    assert grown(LinearHead(4), 3, 1, 2).slices() == [slice(0, 3), slice(3, 4), slice(4, 6)]
    assert LinearHead(4).slices() == []


@pytest.mark.parametrize("zero", [True, False])
def test_widening_keeps_the_old_columns_and_draws_or_zeroes_the_new_ones(zero: bool):
    head = grown(LinearHead(4), 3, 2)
    before, weight = logits(head), head.weight.clone()
    head.widen(3, zero_old=zero)
    assert head.dim == 7
    assert torch.equal(head.weight[:, :4], weight)
    assert bool((head.weight[:, 4:] == 0).all()) == zero
    assert float(head.weight[:, 4:].abs().max()) <= 1 / 7**0.5
    wide = logits(head, torch.cat([FEATURES, torch.randn(5, 3)], dim=1))
    assert torch.allclose(wide, before, rtol=1e-5, atol=1e-6) == zero
    head.grow(1)
    assert head.blocks[2].weight.shape == (1, 7)


def test_row_norms_are_the_lengths_of_each_classs_weights():
    head = grown(LinearHead(2), 1, 1)
    with torch.no_grad():
        head.blocks[0].weight.copy_(torch.tensor([[3.0, 4.0]]))
        head.blocks[1].weight.copy_(torch.tensor([[0.0, -2.0]]))
    assert head.row_norms().tolist() == [5, 2]
    assert not head.row_norms().requires_grad


def test_several_proxies_a_class_count_with_their_mean_norm():
    class Proxies(LinearHead):
        rows_per_class = 2

    head = grown(Proxies(1), 2)
    with torch.no_grad():
        head.blocks[0].weight.copy_(torch.tensor([[1.0], [3.0], [-4.0], [0.0]]))
    assert head.row_norms().tolist() == [2, 2]


def test_heads_are_built_by_name_and_a_wrong_name_is_answered():
    assert isinstance(build_head("cosine", 8, {"scale": 3.0}), CosineHead)
    with pytest.raises(UnknownName, match="There is no head called 'cosin'; did you mean cosine"):
        build_head("cosin", 8, {})


def test_a_file_may_register_a_head_of_its_own(monkeypatch):
    monkeypatch.setattr("imbcil.harness.network.heads.HEADS", dict(HEADS))

    @register_head("twice")
    class Twice(LinearHead):
        def forward(self, features, maps):
            return {"logits": 2 * super().forward(features, maps)["logits"]}

    head = grown(build_head("twice", 4, {"bias": False}), 2)
    torch.testing.assert_close(logits(head), 2 * FEATURES @ head.weight.T)


def test_a_head_without_a_forward_says_so():
    with pytest.raises(NotImplementedError, match="Head defines no forward"):
        Head(4)(FEATURES, [])
