"""The recipe of the poster's 224-pixel columns, from a folder of pictures to finished runs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imbcil.harness.planning import plan_request
from imbcil.harness.request import RunRequest
from imbcil.harness.suite import build_setting, run_request
from imbcil.harness.view import SilentView
from imbcil.protocols.library import import_dataset


def write_pictures(root: Path, classes: int, train: int, test: int, size: tuple[int, int]) -> Path:
    """A tree as ImageNet's: train/WNID/*.JPEG and val/WNID/*.JPEG; each class has a colour of its own."""
    generator = np.random.default_rng(0)
    for number in range(classes):
        colour = generator.integers(0, 256, 3)
        for split, count in (("train", train), ("val", test)):
            folder = root / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.clip(colour + generator.normal(0, 30, (*size, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.JPEG")
    return root


def asked(dataset: str, store: Path, **changes: object) -> RunRequest:
    given = {"method": ("replay",), "n_tasks": 2, "recipe": "paper-224", "memory": "1/class", "rho": 2.0,
             "device": "cpu", "precision": "fp32", "no_tracking": True, "store": str(store), **changes}  # fmt: skip
    return RunRequest.model_validate({"dataset": dataset, **given})


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch):
    """From now on, opening a picture fails."""

    def start() -> None:
        def refuse(*_: object, **__: object) -> None:
            raise AssertionError("a picture was decoded")

        monkeypatch.setattr(Image, "open", refuse)

    return start


@pytest.mark.slow
def test_the_recipe_trains_at_224_pixels_from_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_decoding
) -> None:
    monkeypatch.setenv("IMBCIL_DATA", str(tmp_path / "data"))
    root = write_pictures(tmp_path / "pictures", classes=4, train=3, test=1, size=(300, 270))
    import_dataset("pictures", root, "folder", None, print, size=256)
    settings = {"train.epochs": 1, "train.milestones": [], "train.schedule": "constant", "data.size": 224}
    request = asked("pictures-lt", tmp_path / "store", set=settings)
    run = plan_request(request, SilentView())[1][0]
    setting = build_setting(run, request, SilentView(), None)
    assert setting.train_bank.test_images(torch.tensor(run.scenario.phases[0].train)).shape[1:] == (
        3,
        224,
        224,
    )
    assert run.plan.recipe.backbone.name == "resnet18"
    no_decoding()
    outcome = run_request(request, SilentView())
    assert [folder.state().status for folder in outcome.runs] == ["finished"]


@pytest.mark.slow
def test_the_long_tail_of_the_imagenet_subset_runs_from_a_folder_of_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_decoding
) -> None:
    monkeypatch.setenv("IMBCIL_DATA", str(tmp_path / "data"))
    root = write_pictures(tmp_path / "pictures", classes=100, train=2, test=1, size=(40, 36))
    settings = {"train.epochs": 1, "train.milestones": [], "data.size": 32, "data.resize": 36}
    import_dataset("imagenet-subset", root, "imagenet", None, print, size=36)
    request = asked("imagenet-subset-lt", tmp_path / "store", set=settings)
    scenario = plan_request(request, SilentView())[1][0].scenario
    assert [phase.hi - phase.lo for phase in scenario.phases] == [50, 50]
    assert scenario.images is not None
    assert scenario.images.train.shape[1:] == (36, 36, 3)
    no_decoding()
    folder = run_request(request, SilentView()).runs[0]
    assert folder.state().status == "finished"
    assert folder.load_scores(1)["test/fc"].shape == (100, 100)
