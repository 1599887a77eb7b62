"""AutoAugment: torchvision's copy of the paper's policies, and draws of each sample."""

import math

import pytest
import torch
from torchvision.transforms import autoaugment as reference

from imbcil.harness import autoaugment
from imbcil.harness.autoaugment import OPERATIONS, auto_augment, policy_table
from imbcil.harness.base.randomness import torch_generator

NAMES = {"TranslateX": "shift_x", "TranslateY": "shift_y", "ShearX": "shear_x", "ShearY": "shear_y"}
POLICIES = {
    "cifar10": reference.AutoAugmentPolicy.CIFAR10,
    "imagenet": reference.AutoAugmentPolicy.IMAGENET,
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_the_papers_as_torchvision_has_it(name: str) -> None:
    theirs = reference.AutoAugment(POLICIES[name])
    space = theirs._augmentation_space(10, (32, 32))
    ours = policy_table(name)
    got, want = [], []
    for row in range(25):
        got.append(
            [(list(OPERATIONS)[ours.operation[row, t]], ours.probability[row, t].item()) for t in range(2)]
        )
        want.append([(NAMES.get(op, op.lower()), p) for op, p, _ in theirs.policies[row]])
        for turn, (op, _, level) in enumerate(theirs.policies[row]):
            magnitudes, signed = space[op]
            assert OPERATIONS[want[row][turn][0]].signed == signed
            if level is None:
                continue
            magnitude = magnitudes[level].item() / (32 if op.startswith("Translate") else 1)
            strength = ours.strength[row, turn].item()
            if op == "Posterize":
                strength = round(strength)  # whole bits
            tolerance = (
                1.01 if op == "Solarize" else 1e-6
            )  # torchvision's thresholds begin at 255, the sources' at 256
            assert strength == pytest.approx(magnitude, abs=tolerance)
    assert got == want


def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[float]]:
    """Record how strongly each operation is applied, and change nothing."""
    seen: dict[str, list[float]] = {name: [] for name in OPERATIONS}

    def recorder(name: str) -> autoaugment.Operation:
        def apply(images: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
            seen[name].extend(strength.tolist())
            return images

        return OPERATIONS[name]._replace(apply=apply)

    monkeypatch.setattr(autoaugment, "OPERATIONS", {name: recorder(name) for name in OPERATIONS})
    return seen


@pytest.mark.parametrize("name", POLICIES)
def test_each_operation_happens_as_often_as_its_policy_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, policy = 20_000, policy_table(name)
    seen = counting(monkeypatch)
    auto_augment(torch.zeros(n, 1, 1, 3, dtype=torch.uint8), name, torch_generator("often", name))
    for number, strengths in enumerate(seen.values()):
        expected = n / 25 * policy.probability[policy.operation == number].sum().item()
        assert len(strengths) == pytest.approx(expected, abs=5 * math.sqrt(expected) + 1e-9)


def test_operations_with_two_directions_go_either_way_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = counting(monkeypatch)
    auto_augment(torch.zeros(20_000, 1, 1, 3, dtype=torch.uint8), "cifar10", torch_generator("signs"))
    for name, strengths in seen.items():
        moved = [s for s in strengths if s != 0]
        if OPERATIONS[name].signed and moved:
            share = sum(s > 0 for s in moved) / len(moved)
            assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(len(moved)))
        else:
            assert all(s >= 0 for s in strengths)


@pytest.mark.parametrize("name", POLICIES)
def test_a_batch_keeps_shape_and_bytes_and_its_input(name: str) -> None:
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8, generator=torch_generator("images"))
    before = images.clone()
    out = auto_augment(images, name, torch_generator("batch"))
    assert (out.dtype, out.shape) == (torch.uint8, images.shape)
    assert torch.equal(images, before)
    changed = (out != images).flatten(1).any(1).float().mean().item()
    assert 0.5 < changed < 1
