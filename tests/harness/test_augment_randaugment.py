"""Patch and RandAugment of the multi-label recipe, and that settings from before them keep their identity."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from imbcil.harness.augment import augment
from imbcil.harness.autoaugment import OPERATIONS, rand_augment
from imbcil.harness.recipes import load_recipe
from imbcil.harness.settings import AugmentSettings, Optimisation, one_cycle


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, side: int = 16) -> torch.Tensor:
    return torch.randint(256, (batch, side, side, 3), generator=gen(9), dtype=torch.uint8)


def test_a_quarter_of_samples_stays_untouched_and_the_draws_decide_all():
    images = noise(4000, 4)
    changed = rand_augment(images, gen())
    assert torch.equal(changed, rand_augment(images, gen()))
    untouched = (changed == images).flatten(1).all(dim=1).float().mean()
    assert 0.25 <= float(untouched) < 0.40  # both skipped, or what was drawn changes nothing here


def test_each_of_fifteen_operations_is_drawn_about_equally_often(monkeypatch):
    seen: dict[str, int] = {}
    for name, operation in list(OPERATIONS.items()):

        def counted(images, strength, name=name):
            seen[name] = seen.get(name, 0) + len(images)
            return images

        monkeypatch.setitem(OPERATIONS, name, operation._replace(apply=counted))
    images = torch.full((6000, 4, 4, 3), 7, dtype=torch.uint8)
    squares = int((rand_augment(images, gen(1)) != images).flatten(1).any(dim=1).sum())
    assert len(seen) == 14
    expected = 6000 * 2 * 0.5 / 15
    counts = [*seen.values(), squares]  # a square always shows
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts)


def test_levels_run_from_one_to_nine(monkeypatch):
    levels: set[float] = set()

    def noted(images, strength):
        levels.update(round(float(value), 4) for value in strength.abs())
        return images

    monkeypatch.setitem(OPERATIONS, "rotate", OPERATIONS["rotate"]._replace(apply=noted))
    rand_augment(noise(3000, 4), gen(2))
    assert levels == {round(30 * level / 9, 4) for level in range(1, 10)}


def once(monkeypatch, name: str, level: int, images: torch.Tensor, sign: int = 1) -> torch.Tensor:
    """`rand_augment` where every sample draws `name` at `level` first and is then left alone; squares sit in the middle."""
    number = [*OPERATIONS, "cutout"].index(name)
    draw = [(number + 0.5) / 15, 0.0, 0.0, 0.9, (level - 0.5) / 9, 0.0, 0.9 if sign > 0 else 0.1, 0.0]

    def drawn(*shape, **options):
        if shape[1:] == (8,):
            return torch.tensor(draw, dtype=torch.float64).expand(shape)
        return torch.full(shape, 0.5, dtype=torch.float64)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", drawn)
        return rand_augment(images, gen())


def pictures(images: torch.Tensor) -> list[Image.Image]:
    return [Image.fromarray(image.numpy()) for image in images]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("level", range(1, 10))
def test_rotation_only_turns_counter_clockwise(monkeypatch, level: int, sign: int):
    images = noise(2, 15)
    turned = once(monkeypatch, "rotate", level, images, sign)
    for picture, found in zip(pictures(images), turned, strict=True):
        expected = picture.rotate(10 * level / 3, fillcolor=(128, 128, 128))
        assert np.array_equal(found.numpy(), np.asarray(expected))


@pytest.mark.parametrize(
    ("level", "side"), [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (6, 12), (7, 16), (8, 18), (9, 20)]
)  # of 2, 4, 7, 9, 11, 13, 16, 18 and 20 pixels asked for
def test_the_square_has_its_side_in_pixels_at_any_size_and_one_colour(monkeypatch, level: int, side: int):
    for size in (30, 224):
        images = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        painted = once(monkeypatch, "cutout", level, images)[0]
        low, high = size // 2 - side // 2, size // 2 + side // 2
        assert (painted[low:high, low:high] == torch.tensor([125, 122, 113])).all()
        assert int((painted != 0).any(dim=2).sum()) == side**2


@pytest.mark.parametrize(("level", "bits", "threshold", "factor"), [(1, 8, 256 * 8 / 9, 0.1), (9, 4, 0, 0.9)])
def test_other_strengths_are_the_packages_at_its_lowest_and_highest_level(
    monkeypatch, level: int, bits: int, threshold: float, factor: float
):
    images = noise(3, 15)
    for name, sign, made in (
        ("posterize", 1, lambda picture: ImageOps.posterize(picture, bits)),
        ("solarize", 1, lambda picture: ImageOps.solarize(picture, threshold)),
        ("color", 1, lambda picture: ImageEnhance.Color(picture).enhance(1 + factor)),
        ("color", -1, lambda picture: ImageEnhance.Color(picture).enhance(1 - factor)),
    ):
        found = once(monkeypatch, name, level, images, sign)
        for picture, changed in zip(pictures(images), found, strict=True):
            assert np.abs(changed.numpy().astype(int) - np.asarray(made(picture)).astype(int)).max() <= 1


def test_the_patch_is_half_of_each_side_as_pil_paints_it_in_one_colour():
    painted = Image.new("L", (16, 16))
    ImageDraw.Draw(painted).rectangle([8 - 4, 8 - 4, 8 + 4, 8 + 4], fill=255)  # CutoutPIL around (8, 8)
    images = torch.zeros(64, 16, 16, 3, dtype=torch.uint8)
    patched = augment(images, AugmentSettings(patch=0.5), 16, gen(3))
    touched = (patched != 0).any(dim=3)
    whole = touched[touched.flatten(1).sum(dim=1).argmax()]  # one that the border does not cut
    assert (whole.any(dim=0).sum(), whole.any(dim=1).sum()) == (9, 9)
    assert int(whole.sum()) == int((np.asarray(painted) > 0).sum())
    for image, inside in zip(patched, touched, strict=True):
        assert len(image[inside].unique(dim=0)) <= 1


def test_settings_that_use_neither_are_written_as_before():
    assert not {"patch", "randaugment"} & AugmentSettings().model_dump().keys()
    assert "peak" not in Optimisation().model_dump()
    used = AugmentSettings(patch=0.5, randaugment=True).model_dump()
    assert (used["patch"], used["randaugment"]) == (0.5, True)
    assert Optimisation(schedule="one_cycle", peak=0.2).model_dump()["peak"] == 0.2


def test_the_peak_of_the_cycle_is_where_it_is_asked_for():
    rates = [one_cycle(step, 100, 0.2) for step in range(100)]
    assert max(range(100), key=lambda step: rates[step]) == 19
    assert all(0 < one_cycle(step, 5, 0.2) <= 1 for step in range(5))


def test_the_recipe_krt_is_what_its_code_does():
    recipe = load_recipe("krt")
    assert (recipe.train.kind, recipe.train.epochs, recipe.train.lr, recipe.train.peak) == (
        "adam",
        20,
        4e-5,
        0.2,
    )
    assert (recipe.augment.patch, recipe.augment.randaugment, recipe.augment.flip) == (0.5, True, False)
    assert recipe.data.size == recipe.data.resize == 224
    assert recipe.train.cycle_momentum
    assert recipe.train.spare_norms
    assert recipe.train.in_first_phase() == recipe.train
    coco = load_recipe("krt-coco").train
    assert (coco.lr, coco.in_first_phase().lr) == (1e-4, pytest.approx(4e-5))
    assert coco.model_copy(update={"lr": 4e-5, "first_phase_lr": 1.0}) == recipe.train
