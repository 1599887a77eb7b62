"""A run's identity: the key changes with all that its numbers follow from, and with nothing else."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import tiny_scenario

from imbcil.baselines.plugins.balanced_softmax import BalancedSoftmax
from imbcil.baselines.replay import Replay
from imbcil.harness.cli.request import build_request
from imbcil.harness.identity import command_line, run_key, stored_config
from imbcil.harness.request import RunRequest
from imbcil.harness.resolve import Plan, resolve_plans
from imbcil.harness.scenario_request import resolve_recipe

RESOLVED = {"precision": "fp32", "compiled": False, "device": "cpu"}
SCENARIO = tiny_scenario()


def plan_of(request: RunRequest) -> Plan:
    return resolve_plans(request, resolve_recipe(request)[0])[0]


def asked(**changes: Any) -> RunRequest:
    base = {"method": "replay+balanced_softmax", "recipe": "paper", "n_tasks": 10, "dataset": "cifar100-lt"}
    return RunRequest.model_validate({**base, **changes})


def key(
    seed: int = 0, scenario: Any = SCENARIO, resolved: dict[str, Any] | None = None, **changes: Any
) -> str:
    request = asked(**changes)
    return run_key(plan_of(request), request, scenario, seed, {**RESOLVED, **(resolved or {})})


KEY = key()


def test_a_key_is_sixteen_hex_digits_and_the_same_each_time():
    assert len(KEY) == 16
    assert int(KEY, 16) >= 0
    assert key() == KEY


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "lfh"}, {"n_tasks": 20}, {"n_tasks": None, "sizes": (50, 50)}, {"base": 50, "n_tasks": 5},
        {"dataset": "cifar100"}, {"order": "ordered"}, {"imbalance": "step"}, {"rho": 50.0}, {"vary": "order"},
        {"seed": 1}, {"preset": "sound"}, {"memory": "2000"}, {"memory": "0"}, {"recipe": "paper-quarter"},
        {"recipe": "paper-aa"}, {"method": "replay"}, {"method": "finetune+balanced_softmax"},
        {"method": "replay+balanced_softmax+class_balanced_sampling"},
        {"method": "replay+class_balanced_sampling+balanced_softmax"},
        {"set": {"train.lr": 0.2}}, {"set": {"train.epochs": 3}}, {"set": {"data.holdout": 0.2}},
        {"set": {"data.sampling_seed": 1}}, {"set": {"augment.flip": False}}, {"set": {"backbone.name": "tiny"}},
        {"set": {"backbone.options.last_relu": False}}, {"set": {"memory.old": "truncate"}},
        {"set": {"memory.pick": "random"}}, {"set": {"replay.train.lr": 0.2}},
        {"resolved": {"precision": "bf16"}}, {"resolved": {"compiled": True}}, {"resolved": {"device": "cuda"}},
        {"scenario": dataclasses.replace(SCENARIO, digest="e" * 64)},
    ],
    ids=str,
)  # fmt: skip
def test_what_the_numbers_follow_from_changes_the_key(change: dict[str, Any]):
    assert key(**change) != KEY


@pytest.mark.parametrize(
    ("settings", "version"),
    [({}, "1"), ({"icarl.schedule": "plateau"}, "2"), ({"icarl.schedule": "recipe"}, "1")],
)
def test_a_version_may_rise_for_those_settings_alone_whose_results_changed(
    settings: dict[str, Any], version: str
):
    assert plan_of(asked(method="icarl", preset="sound", set=settings)).learner.version == version


def test_no_two_of_many_runs_have_one_key():
    keys = [
        key(seed=seed, memory=memory, vary=vary, method=method)
        for seed in range(3) for memory in ("0", "2000", "20/class") for vary in ("model", "order", "sample", "all")
        for method in ("replay", "icarl", "replay+balanced_softmax")
    ]  # fmt: skip
    assert len(set(keys)) == len(keys) == 108


@pytest.mark.parametrize(
    "change",
    [
        {"store": "/elsewhere"}, {"data_root": "/data"}, {"tracking_uri": "http://localhost:1"}, {"no_tracking": True},
        {"checkpoint_every": 0.0}, {"force": True}, {"device": "cuda:1"}, {"seeds": (0, 1, 2)}, {"precision": "fp32"},
        {"compile": "off"}, {"method": ("replay+balanced_softmax", "finetune")}, {"preset": "released"},
        {"memory": "20/class"}, {"order": "shuffled"}, {"set": {"train.epochs": 160}},
        {"scenario": dataclasses.replace(SCENARIO, embedded=False, class_names=("x",) * 6)},
    ],
    ids=str,
)  # fmt: skip
def test_where_and_how_a_run_is_kept_does_not_change_the_key(change: dict[str, Any]):
    assert key(**change) == KEY


@pytest.mark.parametrize(
    "change",
    [
        {"n_tasks": None},  # the protocol's default is 10
        {"imbalance": "exp"},
        {"dataset": "cifar100", "imbalance": "exp"},
        {"memory": "020/class"},
        {"rho": 100.0},  # the default of every profile
    ],
    ids=str,
)
def test_another_spelling_of_the_same_run_has_the_same_key(change: dict[str, Any]):
    assert key(**change) == KEY


def test_spellings_that_only_look_alike_keep_keys_of_their_own():
    assert key(order="random:07") == key(order="random:7") != key(order="random:70")
    assert key(memory="0/class") == key(memory="0") != KEY
    assert key(protocol="lfh", n_tasks=None) == key(protocol="lfh") != KEY
    assert key(n_tasks=None, base=10) != KEY
    # imagenet-lt is a published list, not the profile applied to imagenet
    assert key(dataset="imagenet", imbalance="exp") != key(dataset="imagenet-lt")


def test_a_recipe_counts_by_its_content_not_by_its_name(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("based_on: paper\nsummary: the same\n")
    assert key(recipe=str(tmp_path / "mine.yaml")) == KEY
    (tmp_path / "mine.yaml").write_text("based_on: paper\ntrain: {lr: 0.2}\n")
    assert key(recipe=str(tmp_path / "mine.yaml")) == key(set={"train.lr": 0.2})


@pytest.mark.parametrize("kind", [Replay, BalancedSoftmax])
def test_raising_a_version_by_hand_changes_the_key(kind: type, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kind, "version", 2)
    assert key() != KEY


LEARNER = "from imbcil.harness.contract import Learner\n\nclass Mine(Learner):\n    pass\n"


def test_a_users_file_counts_by_its_content_not_by_its_place(tmp_path: Path):
    keys = []
    for folder, text in (("a", LEARNER), ("b", LEARNER), ("c", LEARNER + "# changed\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
        keys.append(key(method=str(tmp_path / folder / "mine.py")))
    assert keys[0] == keys[1] != keys[2]


def test_an_order_file_counts_by_its_content_not_by_its_place(tmp_path: Path):
    assert key(order=str(tmp_path / "a.txt")) == key(
        order=str(tmp_path / "b.txt")
    )  # the digest has the order
    assert key(order=str(tmp_path / "a.txt")) != key(order="ordered")


# --- the stored config --------------------------------------------------------------------------------------------

REQUESTS = {
    "as it is": {},
    "another preset": {"method": "icarl", "preset": "sound"},
    "no preset in the recipe": {"method": "icarl", "recipe": "quick", "preset": "released"},
    "a total memory": {"memory": "2000"},
    "no memory": {"memory": "0"},
    "small and large numbers": {"set": {"train.weight_decay": 1e-7, "train.lr": 1e3, "replay.train.lr": 1 / 3}},
    "lists and nothing": {"set": {"train.milestones": [1, 2, 3], "replay.train.clip_norm": 0.5, "train.clamp": None}},
    "plug-in settings": {
        "method": "gradient_reweighting+class_balanced_sampling", "set": {"class_balanced_sampling.q": 0.5}
    },
    "a divided recipe": {"recipe": "paper-quarter", "method": "icarl"},
    "a recipe of one's own": {"recipe": {"name": "on", "based_on": "pycil", "learners": {"replay": {"train": {"lr": 9}}}}},
    "backbone options": {"set": {"backbone.name": "resnet18", "backbone.options": {"stem": "3x3", "last_relu": False}}},
    "sizes": {"n_tasks": None, "sizes": (50, 30, 20)},
    "a base and a step": {"n_tasks": None, "base": 0, "step": 5},
    "a random order": {"order": "random:7", "imbalance": "few-shot", "rho": 20.0, "dataset": "cifar100"},
    "a seed of the order": {"vary": "order", "seeds": (3,)},
    "a seed of everything": {"vary": "all", "seeds": (2,)},
}  # fmt: skip


@pytest.mark.parametrize("changes", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("resolved", [RESOLVED, {"precision": "bf16", "compiled": True, "device": "cpu"}])
def test_a_stored_config_repeats_the_run(changes: dict[str, Any], resolved: dict[str, Any], tmp_path: Path):
    request = asked(**changes)
    seed = request.seeds[0]
    first = plan_of(request)
    path = tmp_path / "config.yaml"
    path.write_text(stored_config(first, request, seed, resolved))
    again = build_request({}, path, [])
    second = plan_of(again)
    assert run_key(second, again, SCENARIO, seed, resolved) == run_key(
        first, request, SCENARIO, seed, resolved
    )
    assert again.seeds == (seed,)
    assert (again.precision, again.compile) == (
        resolved["precision"],
        "on" if resolved["compiled"] else "off",
    )
    assert stored_config(second, again, seed, resolved) == path.read_text()


def test_a_stored_config_writes_everything_out_and_no_place():
    request = asked(
        store="/secret/store", data_root="/secret/data", tracking_uri="http://me:pw@host", force=True
    )
    text = stored_config(plan_of(request), request, 0, RESOLVED)
    content = yaml.safe_load(text)
    assert content["recipe"]["train"]["epochs"] == 160
    assert content["set"]["replay.train"]["epochs"] == 160
    assert "secret" not in text
    assert "host" not in text
    assert not {"store", "data_root", "tracking_uri", "force", "no_tracking", "checkpoint_every"} & set(
        content
    )


def test_a_stored_config_means_the_same_files_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(LEARNER)
    monkeypatch.chdir(tmp_path)
    request = asked(method="./mine.py+balanced_softmax", order="orders/first.txt")
    stored = yaml.safe_load(stored_config(plan_of(request), request, 0, RESOLVED))
    assert stored["method"] == [f"{tmp_path / 'mine.py'}+balanced_softmax"]
    assert stored["order"] == str(tmp_path / "orders" / "first.txt")


def test_flags_win_over_a_stored_config(tmp_path: Path):
    request = asked()
    path = tmp_path / "config.yaml"
    path.write_text(stored_config(plan_of(request), request, 0, RESOLVED))
    again = build_request({"memory": "5/class", "seeds": (4,)}, path, ["replay.train.epochs=2"])
    plan = plan_of(again)
    assert (plan.recipe.memory.budget, again.seeds, plan.learner.cfg.train.epochs) == ("5/class", (4,), 2)


# --- the command --------------------------------------------------------------------------------------------------


def typed(command: str) -> RunRequest:
    """What a shell would make of a command, read as flags."""
    words = shlex.split(command)
    assert words[:2] == ["imbcil-bench", "run"]
    flags: dict[str, Any] = {}
    pairs: list[str] = []
    for flag, value in zip(words[2::2], words[3::2], strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        if name == "set":
            pairs.append(value)
        elif name == "seed":
            flags["seeds"] = (int(value),)
        elif name == "sizes":
            flags["sizes"] = tuple(map(int, value.split(",")))
        else:
            flags[name] = yaml.safe_load(value) if name in {"n_tasks", "base", "step", "rho"} else value
    return build_request(flags, None, pairs)


@pytest.mark.parametrize(
    "changes", [value for name, value in REQUESTS.items() if name != "a recipe of one's own"], ids=str
)
def test_the_command_gives_the_run_again_when_pasted_into_a_shell(changes: dict[str, Any]):
    request = asked(**changes)
    seed = request.seeds[0]
    again = typed(command_line(plan_of(request), request, seed))
    assert run_key(plan_of(again), again, SCENARIO, seed, RESOLVED) == key(seed=seed, **changes)


@pytest.mark.parametrize("name", ["precision", "compile", "device"])
def test_the_command_names_what_was_not_left_to_the_machine(name: str):
    value = {"precision": "bf16", "compile": "off", "device": "cpu"}[name]
    request = asked(**{name: value})
    assert f"--{name} {value}" in command_line(plan_of(request), request, 0)
    assert f"--{name}" not in command_line(plan_of(asked()), asked(), 0)


def test_torch_does_not_decide_the_key(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(1)
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert key() == KEY
