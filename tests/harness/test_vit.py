"""Vision transformers: known sizes, attention re-derived, the backbone contract, adapters on queries and values."""

import sys

import pytest
import torch
from torch import nn

from imbcil.harness.base.errors import BadInput
from imbcil.harness.network.adapters import AdaptedQkv, LowRankAdapter, adapters_of
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.network import Network, clone, starting_spec
from imbcil.harness.network.runtime import Runtime

SMALL = {"size": 8, "patch": 4, "depth": 3}


def images(size: int = 8, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


def seeded(kind: str = "vit_tiny", **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_backbone(kind, **{**SMALL, **options})


@pytest.mark.parametrize(("kind", "width"), [("vit_tiny", 192), ("vit_small", 384)])
def test_a_transformer_has_as_many_parameters_as_its_layers_add_up_to(kind: str, width: int) -> None:
    """12 blocks of 12 d² + 13 d, a last norm, 48 d + d for the patches, 64 + 1 positions and a class token."""
    want = 12 * (12 * width**2 + 13 * width) + 2 * width + 49 * width + 65 * width + width
    made = build_backbone(kind)
    assert sum(value.numel() for value in made.parameters()) == want
    assert made.dim == width


def test_it_gives_three_maps_and_the_class_token_as_features() -> None:
    made = seeded(size=32).eval()
    out = made(images(32))
    assert [tuple(map_.shape) for map_ in out["maps"]] == [(2, 192, 8, 8)] * 3
    assert out["features"].shape == (2, 192)
    assert out["features"].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert made(images(32))["features"].dtype == torch.float32


def test_attention_is_softmax_of_scaled_products_head_by_head() -> None:
    layer = seeded().blocks[0].attn
    x = torch.randn(2, 5, 192, generator=torch.Generator().manual_seed(2))
    rows = x @ layer.qkv.weight.T + layer.qkv.bias
    queries, keys, values = rows[..., :192], rows[..., 192:384], rows[..., 384:]
    heads = []
    for head in range(3):
        part = slice(64 * head, 64 * head + 64)
        weights = (queries[..., part] @ keys[..., part].transpose(1, 2) / 8).softmax(-1)
        heads.append(weights @ values[..., part])
    want = torch.cat(heads, -1) @ layer.proj.weight.T + layer.proj.bias
    torch.testing.assert_close(layer(x), want, atol=1e-6, rtol=1e-5)


def test_positions_matter_and_follow_the_size_of_the_picture() -> None:
    made = seeded().eval()
    moved = images().roll(4, dims=3)  # the same patches in other places
    assert not torch.allclose(made(images())["features"], made(moved)["features"], atol=1e-3)
    assert made(images(16))["maps"][-1].shape == (2, 192, 4, 4)
    assert torch.equal(made._positions(2, 2), made.pos_embed[:, 1:])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"patch": 5}, "no whole number"), ({"depth": 0}, "depth"), ({"lora_rank": -1}, "lora_rank"), ({"heads": 3}, "heads"),
     ({"lora_rank": 193}, "192 wide"), ({"part": "stem"}, "part")],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused_by_name(wrong: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build_backbone("vit_tiny", **wrong)


# --- adapters -----------------------------------------------------------------------------------------------------


def test_an_adapter_begins_as_nothing_and_then_stands_for_its_delta() -> None:
    adapter = LowRankAdapter(6, 4, rank=2)
    x = images().flatten()[:12].view(2, 6)
    assert not adapter(x).any()
    nn.init.normal_(adapter.up)
    torch.testing.assert_close(adapter(x), x @ ((adapter.up @ adapter.down) / 2).T)
    torch.testing.assert_close(adapter(x), x @ adapter.delta().T)


def test_adapters_change_queries_and_values_and_no_keys() -> None:
    layer = nn.Linear(6, 18)
    adapted = AdaptedQkv(layer, rank=2)
    x = images().flatten()[:12].view(2, 6)
    torch.testing.assert_close(adapted(x), layer(x))
    for adapter in (adapted.q, adapted.v):
        nn.init.normal_(adapter.up)
    got, want = adapted(x), layer(x)
    assert torch.equal(got[:, 6:12], want[:, 6:12])
    torch.testing.assert_close(got[:, :6] - want[:, :6], adapted.q(x))
    torch.testing.assert_close(got[:, 12:] - want[:, 12:], adapted.v(x))


def test_only_adapters_can_be_trained_and_the_rest_keeps_its_names() -> None:
    plain, adapted = seeded(), seeded(lora_rank=4)
    trained = dict(adapted.named_parameters())
    assert set(trained) == {
        f"blocks.{b}.attn.qkv.{p}.{m}" for b in range(3) for p in "qv" for m in ("down", "up")
    }
    assert sum(value.numel() for value in trained.values()) == 3 * 2 * 2 * 4 * 192
    assert set(plain.state_dict()) == set(adapted.state_dict()) - set(trained)
    assert list(adapters_of(adapted)) == [f"blocks.{b}.attn.qkv.{p}" for b in range(3) for p in "qv"]
    missing = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert set(missing.missing_keys) == set(trained) and not missing.unexpected_keys
    torch.testing.assert_close(adapted.eval()(images())["features"], plain.eval()(images())["features"])


def test_a_network_with_adapters_is_copied_and_rebuilt_whole() -> None:
    net = Network(starting_spec("vit_tiny", {**SMALL, "lora_rank": 2}), Runtime())
    net.grow(3)
    copy = clone(net).eval()
    assert torch.equal(copy(images()).logits, net.eval()(images()).logits)
    assert all(value.grad_fn is None for value in copy.buffers())


def test_adapters_need_an_attention_that_has_them() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BadInput, match="no attention with a layer qkv"):
        build_backbone("tresnet_m", lora_rank=2)


# --- timm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tresnet_m", "timm:vit_tiny_patch16_224"])
def test_without_timm_one_sentence_says_how_to_install_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        BadInput, match=r'timm, which is not installed; run: pip install "imbcil-bench\[timm\]"'
    ):
        build_backbone(kind)


@pytest.mark.parametrize(
    ("kind", "options", "dim"),
    [("tresnet_m", {}, 2048), ("timm:vit_tiny_patch16_224", {"size": 32, "lora_rank": 2}, 192), ("timm:resnet18", {}, 512)],
)  # fmt: skip
def test_models_of_timm_are_backbones(kind: str, options: dict, dim: int) -> None:
    pytest.importorskip("timm")
    made = build_backbone(kind, **options).eval()
    out = made(images(64))
    assert out["features"].shape == (2, dim) and made.dim == dim
    assert all(map_.ndim == 4 for map_ in out["maps"])
    trained = {name for name, _ in made.named_parameters()}
    assert bool(adapters_of(made)) == ("lora_rank" in options)
    assert "lora_rank" not in options or all(".qkv." in name for name in trained)


def test_an_unknown_model_of_timm_suggests_a_known_one() -> None:
    pytest.importorskip("timm")
    with pytest.raises(BadInput, match="did you mean"):
        build_backbone("timm:vit_tiny_patch16_22")
