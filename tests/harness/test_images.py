"""Image banks: the rows asked for, from the device or from the cache, drawn by key and padded without effect."""

from typing import Any

import numpy as np
import pytest
import torch

from imbcil.harness import images
from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.base.randomness import torch_generator
from imbcil.harness.images import ImageBank
from imbcil.harness.settings import AugmentSettings

ARRAY = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(20) % 3
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
ROWS = np.array([19, 3, 3, 7, 0, 11, 12])


def bank(augmentation: AugmentSettings | None = None, array: np.ndarray = ARRAY, **options: Any) -> ImageBank:
    given = {"size": 8, "mean": MEAN, "std": STD, "device": torch.device("cpu"), **options}
    return ImageBank(array, LABELS, ROWS, augmentation=augmentation or AugmentSettings(), **given)


@pytest.fixture(params=["held", "read from the cache"])
def any_bank(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> ImageBank:
    if request.param == "held":
        return bank()
    np.save(tmp_path / "a.npy", ARRAY)
    monkeypatch.setattr(images, "HELD_AT_MOST", 0)
    made = bank(array=np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert made._held is None
    return made


def expected(index: torch.Tensor) -> np.ndarray:
    """Normalised images [B, 3, 8, 8] in float64."""
    return ((ARRAY[index.numpy()] / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)


def test_rows_come_in_the_order_asked_for_and_as_often(any_bank: ImageBank):
    index = torch.tensor([7, 0, 19, 7])
    assert np.array_equal(any_bank.raw(index).numpy(), ARRAY[index.numpy()])
    assert any_bank.targets(index).tolist() == LABELS[index.numpy()].tolist()


def test_a_row_that_the_run_does_not_have_is_refused(any_bank: ImageBank):
    with pytest.raises(ContractViolation, match="Row 5 was asked for"):
        any_bank.raw(torch.tensor([3, 5]))


def test_the_test_view_is_normalised_and_may_be_mirrored(any_bank: ImageBank):
    index = torch.tensor([3, 11])
    plain, mirrored = any_bank.test_images(index), any_bank.test_images(index, flip=True)
    assert plain.dtype == torch.float32
    np.testing.assert_allclose(plain.numpy(), expected(index), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mirrored.numpy(), expected(index)[..., ::-1], rtol=1e-5, atol=1e-5)


def test_without_augmentation_training_sees_the_test_view(any_bank: ImageBank):
    index = torch.tensor([3, 11])
    seen = any_bank.train_images(index, torch_generator("x"))
    torch.testing.assert_close(seen, any_bank.test_images(index))


def test_augmentation_follows_from_the_generator_alone():
    made, index = bank(AugmentSettings(crop="pad", pad=2, flip=True)), torch.tensor([3, 11, 12, 0, 7])
    torch.manual_seed(1)
    first = made.train_images(index, torch_generator("augment", 1))
    torch.manual_seed(2)
    assert torch.equal(made.train_images(index, torch_generator("augment", 1)), first)
    assert not torch.equal(made.train_images(index, torch_generator("augment", 2)), first)


def test_only_the_rows_that_a_run_uses_are_held():
    made = bank()
    assert made._held is not None
    assert made._held.shape == (6, 8, 8, 3)  # one row was named twice
    assert made.image_bytes == 192


@pytest.mark.parametrize(("n", "counts"), [(0, []), (3, [3]), (4, [4]), (6, [4, 2])])
def test_evaluation_batches_are_full_and_say_how_many_rows_count(
    any_bank: ImageBank, n: int, counts: list[int]
):
    index = torch.from_numpy(np.unique(ROWS))[:n]
    batches = list(any_bank.evaluation_batches(index, 4))
    assert [count for _, count in batches] == counts
    assert all(len(part) == 4 for part, _ in batches)
    seen = torch.cat([part[:count] for part, count in batches]) if batches else torch.empty(0, 3, 8, 8)
    np.testing.assert_allclose(seen.numpy(), expected(index), rtol=1e-5, atol=1e-5)


def test_mirrored_evaluation_batches_are_mirrored(any_bank: ImageBank):
    index = torch.tensor([3, 11])
    ((part, _),) = any_bank.evaluation_batches(index, 2, flip=True)
    torch.testing.assert_close(part, any_bank.test_images(index).flip(3))
