"""Names come from files, classes from one import, and every wrong name gets a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from imbcil.harness.base.descriptions import describe
from imbcil.harness.base.errors import BadInput, UnknownName
from imbcil.harness.base.registry import (
    find_source,
    learner_names,
    learner_version,
    load_learner,
    load_plugin,
    parse_method,
    plugin_names,
    short_name,
)

MINE = '''"""Mine: a learner of my own. It does little."""
from imbcil.harness.base.config import Frozen

class Learner:
    contract = "learner"

class Mine(Learner):
    Config = Frozen
    title = "MINE"
    needs = dict(labels={"multi", "single"}, memory="none", privileged=True)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("class Learner:", "class _Learner:").replace("(Learner)", "(_Learner)"))
    return path


def test_every_file_in_methods_and_baselines_is_a_name_and_no_other_file_is():
    root = Path(find_source("learner", learner_names()[0]).file or "").parent.parent
    files = {
        file.stem
        for folder in ("methods", "baselines")
        for file in (root / folder).glob("*.py")
        if not file.name.startswith("_")
    }
    assert set(learner_names()) == files
    assert learner_names() == sorted(learner_names())


def test_listing_and_describing_everything_imports_no_heavy_library():
    code = (
        "import sys\n"
        "from imbcil.harness.base.descriptions import describe\n"
        "from imbcil.harness.base.registry import learner_names, plugin_names\n"
        "[describe('learner', n) for n in learner_names()]; [describe('plugin', n) for n in plugin_names()]\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", learner_names())
def test_every_built_in_learner_loads_and_describes_itself_in_one_line(name: str):
    assert load_learner(name).contract == "learner"
    summary = describe("learner", name).summary
    assert 5 < len(summary) < 240, "the first sentence of the docstring is the line in `list`"


@pytest.mark.parametrize("name", plugin_names())
def test_every_built_in_plugin_loads_and_describes_itself_in_one_line(name: str):
    assert load_plugin(name).contract == "plugin"
    assert 5 < len(describe("plugin", name).summary) < 240


@pytest.mark.parametrize("name", plugin_names())
def test_what_list_reads_from_a_plugins_syntax_tree_is_what_its_class_holds(name: str):
    said, kind = describe("plugin", name), load_plugin(name)
    assert said.slots == tuple(kind.slots)
    assert said.labels == tuple(sorted(kind.labels))
    assert said.source == kind.source != ""
    assert said.reconstruction == kind.reconstruction


def test_a_single_file_joins_by_its_path(mine: Path):
    assert load_learner(str(mine)).__name__ == "Mine"
    assert parse_method(f"{mine}").learner == str(mine)
    assert short_name(str(mine)) == "mine"


def test_the_version_of_a_file_is_its_content_and_changes_with_it(mine: Path):
    first, loaded = learner_version(str(mine), None), load_learner(str(mine))
    mine.write_text(mine.read_text() + "\n    extra = 1\n")
    assert learner_version(str(mine), None) != first
    assert load_learner(str(mine)) is not loaded
    assert load_learner(str(mine)).extra == 1


def test_a_description_reads_docstring_and_literals_without_running_the_file(tmp_path: Path):
    path = tmp_path / "boom.py"
    path.write_text(MINE + "\nraise SystemExit('was run')\n")
    said = describe("learner", str(path))
    assert (said.summary, said.title) == ("Mine: a learner of my own", "MINE")
    assert (said.labels, said.memory, said.upper_bound) == (("multi", "single"), "none", True)


def test_a_path_may_hold_a_plus(tmp_path: Path, mine: Path):
    folder = tmp_path / "c++"
    folder.mkdir()
    path = mine.rename(folder / "mine.py")
    assert parse_method(str(path)) == (str(path), ())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("replai", "There is no learner called 'replai'; did you mean replay"),
        ("replay+", "lacks a name"),
        ("", "lacks a name"),
        ("+balanced_softmax", "lacks a name"),
        (
            "replay+balanced_softmx",
            "There is no plug-in called 'balanced_softmx'; did you mean balanced_softmax",
        ),
        ("balanced_softmax", "balanced_softmax is a plug-in, not a learner"),
        ("replay+finetune", "finetune is a learner, not a plug-in"),
        ("replay+balanced_softmax+balanced_softmax", "twice"),
        ("./absent.py", "There is no file ./absent.py"),
        ("../replay", "There is no file ../replay"),
        ("os", "There is no learner called 'os'"),
        ("plugins", "There is no learner called 'plugins'"),
    ],
)
def test_a_wrong_method_is_refused_in_one_sentence(text: str, sentence: str):
    with pytest.raises(BadInput) as refusal:
        parse_method(text)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("def f(:\n", ", line 1: SyntaxError"),
        ("x = 1\nimport no_such_module_at_all\n", ", line 2: ModuleNotFoundError"),
        ("x = 1\n", "defines no class of Learner"),
        ("class A:\n    contract = 'learner'\nclass B(A): ...\n", "defines 2 classes (A, B)"),
        ("\x00", "mine.py"),
    ],
)
def test_a_broken_file_of_the_users_is_named_with_its_line(tmp_path: Path, content: str, sentence: str):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(BadInput) as refusal:
        load_learner(str(path))
    assert sentence in str(refusal.value)
    assert "mine.py" in str(refusal.value)


def test_a_class_that_the_file_only_imports_is_not_its_own(tmp_path: Path, mine: Path):
    user = tmp_path / "other.py"
    source = find_source("learner", str(mine))
    user.write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('elsewhere', {str(source.file)!r})\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\nMine = module.Mine\n"
    )
    with pytest.raises(BadInput, match="defines no class"):
        load_learner(str(user))


def test_a_package_joins_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: Path):
    package = tmp_path / "site"
    (package / "theirs-1.0.dist-info").mkdir(parents=True)
    (package / "theirs-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n"
    )
    (package / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        "[imbcil.learners]\ntheir_learner = their_package\nbroken_one = their_package:Absent\n"
    )
    (package / "their_package.py").write_text(mine.read_text())
    monkeypatch.syspath_prepend(str(package))
    assert "their_learner" in learner_names()
    assert load_learner("their_learner").__name__ == "Mine"
    assert describe("learner", "their_learner").origin == "package"
    with pytest.raises(BadInput, match="broken_one = their_package:Absent breaks: AttributeError"):
        load_learner("broken_one")


def test_an_unknown_plugin_name_is_not_searched_outside_the_folders():
    with pytest.raises(UnknownName):
        load_plugin("more.evil")
