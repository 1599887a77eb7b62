"""Device and precision of a run: what is here, what is refused, what is slow."""

import pytest
import torch

from imbcil.harness import hardware
from imbcil.harness.base.errors import BadInput
from imbcil.harness.hardware import precision_notes, resolve_device, resolve_precision

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")


def with_gpus(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(("cuda", "mps", "kind"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_takes_the_fastest_device_that_is_here(
    cuda: int, mps: bool, kind: str, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(monkeypatch, cuda, mps)
    assert resolve_device("auto") == torch.device(kind)


def test_a_device_may_be_named_by_number(monkeypatch: pytest.MonkeyPatch):
    with_gpus(monkeypatch, cuda=2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "cpu:0", "mps:1", "", "CUDA", "cuda:0:1"])
def test_a_device_that_cannot_be_read_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    with_gpus(monkeypatch, cuda=2, mps=True)
    with pytest.raises(BadInput, match=f"--device {name}: use auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize(("name", "cuda"), [("cuda:2", 2), ("cuda", 0), ("cuda:99", 1), ("mps", 0)])
def test_a_device_that_is_not_here_is_refused_with_how_many_are(
    name: str, cuda: int, monkeypatch: pytest.MonkeyPatch
):
    with_gpus(monkeypatch, cuda)
    with pytest.raises(BadInput, match=f"--device {name} is not on this machine, which has {cuda} of kind"):
        resolve_device(name)


def test_precision_follows_the_hardware_unless_it_is_named(monkeypatch: pytest.MonkeyPatch):
    for native, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(hardware, "native_bf16", lambda device, native=native: native)
        assert resolve_precision("auto", CPU) == precision
    assert [resolve_precision(name, CPU) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("tf32", CUDA) == "tf32"


@pytest.mark.parametrize(
    ("native", "precision", "said"), [(False, "bf16", 1), (True, "bf16", 0), (False, "fp32", 0)]
)
def test_an_emulated_precision_is_called_slow(
    native: bool, precision: str, said: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hardware, "native_bf16", lambda device: native)
    assert [note[:17] for note in precision_notes(precision, CPU)] == ["--precision bf16:"] * said


@pytest.mark.parametrize("device", [CPU, MPS])
def test_tf32_is_for_cuda_alone(device: torch.device):
    with pytest.raises(BadInput, match=f"--precision tf32 needs a CUDA device, not {device.type}"):
        resolve_precision("tf32", device)
