"""Re-balancing plug-ins: what cannot be combined, settings out of range, controls, classes without an image."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_plan, tiny_runner

from imbcil.harness.base.errors import BadInput
from imbcil.harness.base.registry import load_plugin, plugin_names
from imbcil.harness.composition import check_counts


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("podnet+lws", ["lws needs a linear head", "podnet has a proxy one", "leave lws out"]),
        ("lucir+tau_norm", ["tau_norm needs a linear head", "lucir has a cosine one"]),
        ("wa+ldam_drw", ["ldam_drw needs a cosine head", "wa has a linear one"]),
        ("lucir+mixup", ["mixup mixes the labels", "lucir needs one hard label", "its margin ranking"]),
        ("podnet+mixup", ["mixup mixes the labels", "podnet needs one hard label", "NCA on proxies"]),
        ("replay+asl", ["asl works on multi labels; this protocol has single ones"]),
        ("replay+db_loss", ["db_loss works on multi labels"]),
        ("podnet+focal", ["focal replaces the classification criterion", "podnet brings its own"]),
        ("replay+focal+ldam_drw", ["focal and ldam_drw both claim the criterion"]),
        ("replay+lws+two_stage", ["lws and two_stage both claim the calibrator"]),
        ("ssil+drs", ["drs replaces the sampler, but ssil brings its own"]),
        ("replay+drs+class_balanced_sampling", ["drs and class_balanced_sampling both claim the sampler"]),
    ],
)
def test_what_cannot_be_combined_is_refused_in_one_sentence(
    method: str, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as refusal:
        tiny_plan(method, tmp_path)
    assert all(part in str(refusal.value) for part in words), refusal.value
    assert "\n" not in str(refusal.value)


def test_what_logit_adjustment_claims_follows_its_form(tmp_path: Path) -> None:
    tiny_plan("replay+logit_adjustment+two_stage", tmp_path / "a")
    with pytest.raises(BadInput, match="logit_adjustment and two_stage both claim the calibrator"):
        tiny_plan(
            "replay+logit_adjustment+two_stage", tmp_path / "b", settings={"logit_adjustment.form": "posthoc"}
        )
    tiny_plan("replay+logit_adjustment+focal", tmp_path / "c", settings={"logit_adjustment.form": "posthoc"})


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [("tau_norm", "tau", 2.1), ("mixup", "alpha", 0), ("focal", "gamma", -1), ("drs", "start", 1.2),
     ("class_balanced_loss", "beta", 1.0), ("class_balanced_sampling", "form", "cubic"), ("crt", "epochs", 0)],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(
    name: str, setting: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=f"{name}: {setting} = "):
        tiny_plan(f"replay+{name}", tmp_path, settings={f"{name}.{setting}": value})


def test_a_control_that_changes_nothing_is_no_error(tmp_path: Path) -> None:
    for number, (method, settings) in enumerate(
        [("replay+tau_norm", {"tau_norm.tau": 0}), ("replay+more", {"more.amplitude": 0})]
    ):
        runner = tiny_runner(method, tmp_path / str(number), settings=settings)
        runner._run_phase()
        assert len(runner.s.folder.records()) == 1


@pytest.mark.parametrize("name", plugin_names())
def test_a_class_without_a_training_image_is_refused_where_priors_are_needed(name: str) -> None:
    kind = load_plugin(name)
    named = [SimpleNamespace(name=name, kind=kind)]
    check_counts(named, [3.0, 1.0], ["cat", "dog"])
    if not kind.needs_counts:
        check_counts(named, [3.0, 0.0], ["cat", "dog"])
        return
    with pytest.raises(
        BadInput, match=f"{name} works with class frequencies, but the class 'dog' has no training image"
    ):
        check_counts(named, [3.0, 0.0], ["cat", "dog"])
