"""Backbones: known sizes, torchvision as oracle, the forward contract, initialisation and options."""

import subprocess
import sys
from math import sqrt

import pytest
import torch
import torchvision
from torch import nn

from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.network import backbones
from imbcil.harness.network.backbones import BACKBONES, build_backbone, kinds

KNOWN_SIZES = {
    "resnet32_pad": 463_504,  # PyCIL's count, head left out
    "resnet32_conv": 463_504
    + (16 * 32 + 2 * 32)
    + (32 * 64 + 2 * 64),  # plus two 1x1 shortcuts and their norms
    "resnet8": (432 + 32)
    + (4_608 + 64)
    + (13_824 + 128 + 512 + 64)
    + (55_296 + 256 + 2_048 + 128),  # by hand
    "resnet18": 11_176_512,
    "resnet34": 21_284_672,
    "resnet50": 23_508_032,
    "resnet101": 42_500_160,
}


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def seeded(kind: str, **opts: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return build_backbone(kind, **opts)


def images(size: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KNOWN_SIZES)
def test_parameter_counts_are_the_published_ones(kind: str) -> None:
    assert count(build_backbone(kind)) == KNOWN_SIZES[kind]


@pytest.mark.parametrize("kind", ["resnet18", "resnet34", "resnet50"])
def test_weights_of_torchvision_give_the_features_and_maps_of_torchvision(kind: str) -> None:
    reference = getattr(torchvision.models, kind)()
    reference.fc = nn.Identity()
    ours = build_backbone(kind)
    ours.load_state_dict(reference.state_dict())
    reference.eval(), ours.eval()
    maps = {}
    for index in range(1, 5):
        layer = getattr(reference, f"layer{index}")
        layer.register_forward_hook(lambda _m, _i, out, key=index - 1: maps.__setitem__(key, out))
    with torch.no_grad():
        want, got = reference(images(64)), ours(images(64))
    torch.testing.assert_close(got["features"], want, atol=1e-5, rtol=1e-5)
    for index, map_ in enumerate(got["maps"]):
        torch.testing.assert_close(map_, maps[index], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["resnet32_conv", "resnet32_pad", "small", "tiny"])
def test_maps_are_the_stage_outputs_and_features_are_the_mean_of_the_last(kind: str) -> None:
    net = build_backbone(kind)
    out = net(images())
    first = 32 // net.conv1.stride[0]
    assert [tuple(map_.shape[2:]) for map_ in out["maps"]] == [(first >> i, first >> i) for i in range(3)]
    assert out["maps"][-1].shape[1] == net.dim
    torch.testing.assert_close(out["features"], out["maps"][-1].mean((2, 3)))


def test_a_convolution_of_resnet32_starts_from_a_normal_of_kaiming_fan_out() -> None:
    for kind in ("resnet32_conv", "resnet32_pad"):
        net = seeded(kind)
        for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
            n = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels
            spread = 5 / sqrt(2 * conv.weight.numel())  # five standard errors of a standard deviation
            assert conv.weight.std().item() == pytest.approx(sqrt(2 / n), rel=spread)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all((m.weight == 1).all() and (m.bias == 0).all() for m in norms)


def test_a_padded_shortcut_subsamples_and_appends_zero_channels() -> None:
    block = build_backbone("resnet32_pad").layer2[0]
    x = images()[:, :1].repeat(1, 16, 1, 1)
    passed = block.downsample(x)
    assert passed.shape == (2, 32, 16, 16)
    assert torch.equal(passed[:, :16], x[:, :, ::2, ::2])
    assert not passed[:, 16:].any()


@pytest.mark.parametrize("kind", ["resnet32_conv", "resnet32_pad", "resnet8", "resnet18", "small", "tiny"])
def test_without_its_last_relu_only_the_last_map_and_the_features_turn_signed(kind: str) -> None:
    with_relu, without = seeded(kind), seeded(kind, last_relu=False)
    want, got = with_relu(images()), without(images())
    for index, (a, b) in enumerate(zip(want["maps"], got["maps"], strict=True)):
        last = index == len(want["maps"]) - 1
        assert bool((b < 0).any()) == last
        torch.testing.assert_close(a, b.relu() if last else b)
    torch.testing.assert_close(got["features"], got["maps"][-1].mean((2, 3)))


def test_without_additions_relu_every_map_is_signed() -> None:
    out = build_backbone("resnet32_conv", post_add_relu=False)(images())
    assert all((map_ < 0).any() for map_ in out["maps"])


def test_zero_initialised_blocks_begin_as_their_shortcut() -> None:
    net = build_backbone("resnet32_pad", zero_init=True).eval()
    x = images().relu()[:, :1].repeat(1, 16, 1, 1)
    assert torch.equal(net.layer1(x), x)


@pytest.mark.parametrize(("zero_init", "linear"), [(True, True), (False, False)])
def test_one_zero_block_a_stage_without_relus_between_is_linear(zero_init: bool, linear: bool):
    """Why the recipe quick turns PODNet's zero_init off."""
    net = seeded("resnet8", post_add_relu=False, zero_init=zero_init).eval()
    a, b = (torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    parts, whole = net.through_stages(a)[0] + net.through_stages(b)[0], net.through_stages(a + b)[0]
    assert torch.allclose(parts, whole, atol=1e-4) == linear


def test_the_small_stem_keeps_the_resolution_of_a_resnet18() -> None:
    assert build_backbone("resnet18", stem="3x3")(images())["maps"][0].shape == (2, 64, 32, 32)
    assert build_backbone("resnet18")(images())["maps"][0].shape == (2, 64, 8, 8)


def test_options_rebuild_a_backbone_of_the_same_output() -> None:
    first = seeded("resnet18", stem="3x3", last_relu=False)
    second = build_backbone("resnet18", **first.opts)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(images())["features"], second.eval()(images())["features"])


def test_features_stay_float32_under_autocast_and_float64_in_double() -> None:
    net = build_backbone("tiny").to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        out = net(images(8).to(memory_format=torch.channels_last))
    assert out["maps"][-1].dtype == torch.bfloat16
    assert out["features"].dtype == torch.float32
    assert out["maps"][-1].is_contiguous(memory_format=torch.channels_last)
    assert net.double()(images(8).double())["features"].dtype == torch.float64


def test_a_backbone_compiles_without_graph_breaks() -> None:
    net = build_backbone("tiny")
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(images(8))["features"], net(images(8))["features"])


def test_an_unknown_backbone_suggests_the_nearest_name() -> None:
    with pytest.raises(UnknownName, match=r"no backbone called 'resnet32_con'; did you mean resnet32_conv"):
        build_backbone("resnet32_con")


@pytest.mark.parametrize("opts", [{"last_relo": True}, {"last_relu": "maybe"}, {"stem": "7x7"}])
def test_an_option_that_a_backbone_does_not_have_is_refused_by_name(opts: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"backbone resnet32_conv.*{next(iter(opts))}"):
        build_backbone("resnet32_conv", **opts)


def test_a_users_file_may_add_a_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "mine", lambda **_: nn.Identity())
    assert "mine" in kinds()
    assert isinstance(build_backbone("mine"), nn.Identity)
    assert backbones.BACKBONES is BACKBONES


def test_a_backbone_without_memory_is_built_without_torchs_compiler():
    script = (
        "import sys, torch\nfrom imbcil.harness.network.backbones import build_backbone\n"
        "with torch.device('meta'): build_backbone('resnet18', zero_init=True)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
