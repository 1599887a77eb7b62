"""Compiling the backbones: decided by the price, obeyed where asked for, refused where impossible; and its runtime."""

import shutil

import pytest
import torch

from imbcil.harness import compilation
from imbcil.harness.base.errors import BadInput
from imbcil.harness.compilation import decide_compilation
from imbcil.harness.network import runtime
from imbcil.harness.network.resnet import ResNet
from imbcil.harness.network.runtime import EVALUATION_BATCH, Runtime, native_bf16

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
PRICE = {("cpu", "fp32"): (70.0, 1e-4), ("cuda", "bf16"): (60.0, 3e-5)}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a compiler and round prices."""
    monkeypatch.setattr(compilation, "PRICE", PRICE)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    ("device", "precision", "images", "compiled"),
    [
        (CPU, "fp32", 700_000, False),  # 70 s cost, 70 s saved
        (CPU, "fp32", 700_001, True),
        (CPU, "bf16", 10**9, False),  # no price: it never pays
        (CUDA, "bf16", 1_999_999, False),
        (CUDA, "bf16", 2_000_001, True),
        (MPS, "fp32", 10**9, False),
        (CPU, "fp32", 0, False),
    ],
)
def test_auto_compiles_where_more_time_is_saved_than_spent(
    device: torch.device, precision: str, images: int, compiled: bool
):
    assert decide_compilation("auto", device, precision, images) is compiled


def test_on_and_off_are_obeyed_whatever_the_price():
    assert decide_compilation("on", CPU, "bf16", 1) is True
    assert decide_compilation("off", CPU, "fp32", 10**9) is False


def test_without_a_compiler_auto_stays_eager_and_on_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert decide_compilation("auto", CPU, "fp32", 10**9) is False
    assert decide_compilation("off", CPU, "fp32", 10**9) is False
    with pytest.raises(
        BadInput, match=r"--compile on cannot work here: cpu lacks a compiler .* use --compile off"
    ):
        decide_compilation("on", CPU, "fp32", 10**9)
    assert decide_compilation("auto", CUDA, "bf16", 10**9) is True


def test_where_nothing_compiles_on_is_refused():
    with pytest.raises(BadInput, match="--compile on cannot work here: mps"):
        decide_compilation("on", MPS, "fp32", 10**9)


class Recorded:
    """Stands in for torch.compile: counts what it is given and what runs through it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[object] = []
        self.batches: list[int] = []
        monkeypatch.setattr(runtime.torch, "compile", self.compile)

    def compile(self, function, dynamic):
        assert dynamic is False  # other modes depend on the order of batches
        self.made.append(function)

        def call(module, images):
            self.batches.append(len(images))
            return function(module, images)

        return call


def test_backbones_compile_once_a_class_and_only_for_known_batch_sizes(monkeypatch: pytest.MonkeyPatch):
    recorded = Recorded(monkeypatch)
    run = Runtime(compiled=True, compile_sizes=frozenset({4, EVALUATION_BATCH}))
    nets = [runtime_backbone() for _ in range(2)]
    for net in nets:
        for size in (4, 3, 4):
            out = run.backbone(net, torch.zeros(size, 3, 8, 8))
            torch.testing.assert_close(out["features"], net(torch.zeros(size, 3, 8, 8))["features"])
    assert recorded.made == [ResNet.forward]
    assert recorded.batches == [4, 4, 4, 4]


def test_an_eager_run_compiles_nothing(monkeypatch: pytest.MonkeyPatch):
    recorded = Recorded(monkeypatch)
    Runtime(compile_sizes=frozenset({4})).backbone(runtime_backbone(), torch.zeros(4, 3, 8, 8))
    assert (recorded.made, recorded.batches) == ([], [])


def runtime_backbone() -> ResNet:
    from imbcil.harness.network.backbones import build_backbone

    torch.manual_seed(0)
    return build_backbone("tiny").eval()


def test_bf16_is_native_where_one_of_the_cpus_units_computes_it(monkeypatch: pytest.MonkeyPatch):
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for flags, native in (((True, False), True), ((False, True), True), ((False, False), False)):
        for name, flag in zip(names, flags, strict=True):
            monkeypatch.setattr(torch.cpu, name, lambda flag=flag: flag, raising=False)
        assert native_bf16(CPU) is native
    assert native_bf16(MPS) is False
