"""`--help` and `list`: quick because they import little, and complete."""

import json
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from fake_runs import add_run, make_store

from imbcil.harness.base.registry import learner_names, plugin_names
from imbcil.harness.cli.main import COMMANDS, main

HEAVY = {"torch", "torchvision", "mlflow", "numpy", "pandas", "scipy", "matplotlib"}
WRITTEN = [name for name in COMMANDS if find_spec(f"imbcil.harness.cli.{name}")]


def modules_after(*arguments: str) -> set[str]:
    """Names in sys.modules after the command line ran with these arguments, in a process of its own."""
    code = (
        "import sys\n"
        "from imbcil.harness.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print('\\nMODULES', *sorted(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("\nMODULES ")[2].split())


def test_every_command_that_help_names_is_written():
    assert list(COMMANDS) == WRITTEN


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], [], ["list"], ["list", "learners", "--json"]]
    + [[name, "--help"] for name in WRITTEN],
    ids=" ".join,
)
def test_help_and_list_import_no_heavy_library(arguments: list[str]):
    assert modules_after(*arguments) & HEAVY == set()


LOOKS = [
    "status",
    "table",
    "table poster",
    "data list",
    "show protocol lfs --n-tasks 10 --dataset cifar100-lt",
]


@pytest.mark.parametrize("arguments", [line.split() for line in LOOKS], ids=LOOKS)
def test_a_look_at_the_store_or_the_data_imports_neither_torch_nor_mlflow(
    arguments: list[str], tmp_path: Path
):
    add_run(make_store(tmp_path / "store"))
    assert modules_after(*arguments) & {"torch", "mlflow"} == set()


def test_help_alone_imports_neither_pydantic_nor_a_subcommand():
    loaded = modules_after("--help")
    assert "pydantic" not in loaded
    assert {name for name in loaded if name.startswith("imbcil.harness.cli.")} == {"imbcil.harness.cli.main"}


@pytest.mark.parametrize("name", WRITTEN)
def test_each_module_has_a_command_with_help_and_an_example(name: str):
    command = import_module(f"imbcil.harness.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option)), "an option without help"
    parts = [command, *(command.commands.values() if isinstance(command, click.Group) else [])]
    assert any("imbcil-bench" in (part.epilog or "") for part in parts), "no example to copy"


def test_help_ends_with_examples_that_name_existing_commands(cli):
    done = cli("--help")
    assert done.returncode == 0
    examples = [line.split() for line in done.stdout.partition("Examples:")[2].strip().splitlines()]
    assert len(examples) >= 3
    assert all(words[0] == "imbcil-bench" and words[1] in COMMANDS for words in examples)


def test_without_arguments_the_help_is_printed(cli):
    assert cli().stdout == cli("--help").stdout


def test_the_version_is_the_packages(cli):
    from importlib.metadata import version

    assert cli("--version").stdout == f"imbcil-bench {version('imbcil-bench')}\n"


def test_list_without_a_word_shows_all_lists(cli):
    shown = cli("list").stdout
    for heading in ("Learners", "Plug-ins", "Protocols", "Datasets", "Recipes"):
        assert heading in shown
    for name in (*learner_names(), *plugin_names(), "lfs", "lfh", "glyphs100", "cifar100", "paper", "quick"):
        assert name in shown


@pytest.mark.parametrize(
    ("what", "some"),
    [
        ("learners", {"finetune", "replay", "joint", "icarl", "gradient_reweighting"}),
        ("plugins", {"balanced_softmax", "class_balanced_sampling"}),
        ("protocols", {"lfs", "lfh"}),
        ("datasets", {"glyphs100", "cifar100", "imagenet-subset", "imagenet", "food101"}),
        ("recipes", {"quick", "paper", "paper-quarter", "pycil"}),
        ("suites", {"poster", "poster-aa", "poster-large", "balanced", "dgr-ablation"}),
    ],
)
def test_a_list_as_json_is_a_list_of_objects_with_name_and_summary(cli, what: str, some: set[str]):
    items = json.loads(cli("list", what, "--json").stdout)
    assert some <= {item["name"] for item in items}
    assert all(item["summary"] for item in items)


def test_an_unknown_list_is_refused_with_a_suggestion(cli):
    done = cli("list", "lerners")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: There is no list called 'lerners'; did you mean learners.\n"


def test_the_group_can_be_driven_from_python_too():
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0


@pytest.mark.parametrize("name", ["data", "show"])
def test_a_group_without_a_word_shows_its_help_as_it_is(cli, name: str):
    done = cli(name)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0].startswith(f"Usage: imbcil-bench {name} ")
    assert "\n  " in done.stderr
    assert "Error" not in done.stderr
