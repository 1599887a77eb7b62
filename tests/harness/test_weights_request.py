"""`--weights` of a run: part of its identity, loaded into its network, refused or marked where it leaks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from imbcil.harness.base.errors import BadInput
from imbcil.harness.cli.main import main
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.planning import PlannedRun, plan_run
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import resolve_plans
from imbcil.harness.runner import Runner
from imbcil.harness.scenario_request import resolve_recipe
from imbcil.harness.settings import BackboneSettings
from imbcil.harness.store.layout import Store
from imbcil.harness.suite import build_setting
from imbcil.harness.view import SilentView
from imbcil.harness.weights import Weights
from imbcil.harness.weights_request import check_backbones, resolve_weights, trained_on_of
from tests.tiny import RECIPE, tiny_scenario

TINY = BackboneSettings(name="tiny")


def stored(
    folder: Path, seed: int = 0, name: str = "w.safetensors", trained_on: str = "", outputs: int = 0
) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tensors = {key: value.clone() for key, value in build_backbone("tiny").state_dict().items()}
    if outputs:
        tensors["fc.weight"] = torch.zeros(outputs, 16)
    save_file(tensors, folder / name, {"trained_on": trained_on} if trained_on else None)
    return folder / name


def asked(path: Path | str | None, method: str = "finetune", **more: Any) -> RunRequest:
    return RunRequest(
        method=(method,), recipe=RECIPE, weights=None if path is None else str(path), no_tracking=True, device="cpu", **more
    )  # fmt: skip


def planned(request: RunRequest, folder: Path, weights: Weights | None) -> PlannedRun:
    plan = resolve_plans(request, resolve_recipe(request)[0])[0]
    store = Store(folder / "store")
    store.prepare()
    return plan_run(plan, request, tiny_scenario(), 0, torch.device("cpu"), "fp32", store, weights)


def test_a_run_starts_from_its_weights_and_its_identity_follows_their_content(tmp_path) -> None:
    keys = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        request = asked(stored(tmp_path, seed, f"{name}.safetensors"))
        weights = resolve_weights(request, TINY, "glyphs100-lt")
        keys[name] = planned(request, tmp_path, weights).info.run_key
    bare = planned(asked(None), tmp_path, None)
    assert keys["a"] == keys["b"]
    assert len({keys["a"], keys["c"], bare.info.run_key}) == 3
    assert (bare.info.weights, bare.info.overrides) == ("", {})
    run = planned(request, tmp_path, weights)
    assert (run.info.weights, run.info.weights_sha256) == ("c.safetensors", weights.sha256)
    assert run.info.overrides == {"weights": f"c.safetensors {weights.sha256[:8]}"}
    run.folder.create(run.info, run.config)
    runner = Runner(build_setting(run, request, SilentView(), None))
    runner._build_network()
    net = runner.learner.net.backbones[0].state_dict()
    assert all(torch.equal(value, weights.tensors[name]) for name, value in net.items())


def test_a_stored_config_finds_the_weights_again(tmp_path, monkeypatch) -> None:
    stored(tmp_path)
    monkeypatch.chdir(tmp_path)
    request = asked("w.safetensors", allow_leaky_weights=True)
    config = yaml.safe_load(planned(request, tmp_path, resolve_weights(request, TINY, "glyphs100")).config)
    assert config["weights"] == str(tmp_path / "w.safetensors")
    assert config["allow_leaky_weights"] is True
    assert "weights" not in yaml.safe_load(planned(asked(None), tmp_path, None).config)


def test_weights_that_saw_the_datasets_classes_are_refused_unless_allowed_and_then_marked(tmp_path) -> None:
    path = stored(tmp_path, trained_on="imagenet")
    assert resolve_weights(asked(path), TINY, "cifar100-lt").leaky == ""
    with pytest.raises(BadInput, match="was trained on imagenet and has seen classes of imagenet-subset-lt"):
        resolve_weights(asked(path), TINY, "imagenet-subset-lt")
    with pytest.raises(BadInput, match="was trained on cifar100"):
        resolve_weights(asked(path), BackboneSettings(name="tiny", trained_on=("cifar100",)), "cifar100-lt")
    request = asked(path, allow_leaky_weights=True)
    weights = resolve_weights(request, TINY, "imagenet-subset-lt")
    info = planned(request, tmp_path, weights).info
    assert (
        info.leaky_weights
        == "w.safetensors was trained on imagenet and has seen classes of imagenet-subset-lt"
    )
    assert info.trained_on == ("imagenet",)
    assert "--weights w.safetensors" in info.command and "--allow-leaky-weights" in info.command


def test_a_coco_head_is_refused_unless_allowed(tmp_path) -> None:
    path = stored(tmp_path, outputs=80)
    with pytest.raises(
        BadInput, match=r"carries a head of 80 outputs .* --allow-leaky-weights, which marks the run"
    ):
        resolve_weights(asked(path), TINY, "voc2007")
    assert "COCO" in resolve_weights(asked(path, allow_leaky_weights=True), TINY, "voc2007").leaky


def test_imagenets_weights_bring_imagenets_statistics(tmp_path) -> None:
    weights = resolve_weights(asked(stored(tmp_path, trained_on="imagenet")), TINY, "cifar100-lt")
    assert (weights.mean, weights.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    request = asked(None)
    run = planned(request, tmp_path, weights)
    run.folder.create(run.info, run.config)
    bank = build_setting(run, request, SilentView(), None).train_bank
    assert tuple(bank.mean) == weights.mean and tuple(bank.std) == weights.std


@pytest.mark.parametrize("method", ["finetune", "lucir", "podnet", "memo", "der"])
def test_what_learners_make_of_the_backbone_is_fitted_before_anything_trains(tmp_path, method) -> None:
    request = asked(stored(tmp_path), method)
    plans = resolve_plans(request, resolve_recipe(request)[0])
    assert check_backbones(plans, resolve_weights(request, TINY, "glyphs100-lt")) == []
    wrong = asked(stored(tmp_path), method, set={"backbone.name": "small"})
    with pytest.raises(BadInput, match="does not fit the backbone"):
        check_backbones(
            resolve_plans(wrong, resolve_recipe(wrong)[0]), resolve_weights(wrong, TINY, "glyphs100-lt")
        )


def test_adapters_on_random_weights_are_said() -> None:
    request = asked(None, set={"backbone.name": "vit_tiny", "backbone.options.lora_rank": 2})
    said = check_backbones(resolve_plans(request, resolve_recipe(request)[0]), None)
    assert len(said) == 1 and "--weights gives them something to adapt" in said[0]


@pytest.mark.parametrize(
    "more", [{"allow_leaky_weights": True}, {"set": {"backbone.trained_on": "coco, voc"}}]
)
def test_words_on_weights_without_any_are_refused(more) -> None:
    request = asked(None, **more)
    with pytest.raises(BadInput, match="add --weights FILE"):
        resolve_weights(request, resolve_recipe(request)[0].backbone, "glyphs100-lt")


def test_tags_of_timm_in_our_words() -> None:
    assert trained_on_of("augreg_in21k_ft_in1k") == ("imagenet21k", "imagenet")
    assert trained_on_of("miil_in21k") == ("imagenet21k",)
    assert trained_on_of("a1_in1k") == ("imagenet",)
    assert trained_on_of("laion2b") == ("laion2b",)


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--weights", "nowhere.pth"], "nowhere.pth cannot be read"), (["--weights", "bad.pth"], "cannot be read as tensors alone"),
     (["--set", "backbone.name=resnet19"], "no backbone called 'resnet19'"), (["--weights", "torchvision"], "no weights for resnet8"),
     (["--set", "backbone.name=resnet18", "--weights", "torchvision:V9"], "version of torchvision's resnet18"),
     (["--set", "backbone.options.stem=5x5"], "stem")],
)  # fmt: skip
def test_bad_weights_and_backbones_end_with_one_sentence_and_code_2(
    tmp_path, monkeypatch, flags, said
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.pth").write_bytes(b"hello")
    result = CliRunner().invoke(main, ["run", "--method", "finetune", "--dry-run", "--no-tracking", *flags])
    assert result.exit_code == 2
    assert said in result.output and "Traceback" not in result.output
