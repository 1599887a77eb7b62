"""Every wrong word, value, file or store: exit code 2 and one sentence that says what and where; nothing trained."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from imbcil.harness.cli.main import main

Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run in this process and in an empty folder; check the manner of the refusal; return its sentence."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(main, ["run", *map(str, arguments)])
        assert isinstance(done.exception, SystemExit), done.exception
        assert done.exit_code == 2
        assert done.stdout == ""
        preparing = ("Rendering glyphs100", "Decoding glyphs100")  # the first test that needs embedded images
        said = [line for line in done.stderr.splitlines() if not line.startswith(preparing)]
        assert len(said) == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not list(tmp_path.glob("store/runs/*"))
        return said[0].removeprefix("Error: ")

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--n-tasks", "0"], "'--n-tasks': 0 is not in the range x>=1"),
        (["--n-tasks", "ten"], "'--n-tasks': 'ten' is not a valid integer"),
        (["--n-tasks", "-3"], "'--n-tasks': -3 is not in the range"),
        (["--n-tasks", "2.5"], "'--n-tasks': '2.5' is not a valid integer"),
        (["--n-tasks"], "Option '--n-tasks' requires an argument"),
        (["--rho", "0.5"], "'--rho': 0.5 is not in the range"),
        (["--rho", "nan"], "--rho: rho = nan"),
        (["--rho", "inf"], "--rho: rho = inf"),
        (["--seed", "-1"], "'--seed': -1 is not in the range"),
        (["--seeds", "0,one"], "'0,one' is no list of whole numbers"),
        (["--seeds", ""], "'' is no list of whole numbers"),
        (["--seeds", "1,1"], "a seed is named twice"),
        (["--seeds", "0,-1"], "seeds are 0 or larger"),
        (["--seed", "1", "--seeds", "2"], "--seed and --seeds exclude each other"),
        (["--sizes", "11,x"], "'11,x' is no list of whole numbers"),
        (["--checkpoint-every", "-1"], "'--checkpoint-every': -1.0 is not in the range"),
        (["--checkpoint-every", "nan"], "--checkpoint-every: checkpoint_every = nan"),
        (["--imbalance", "expo"], "'expo' is not one of 'exp', 'step', 'few-shot', 'none'"),
        (["--vary", "seed"], "'seed' is not one of"),
        (["--precision", "fp16"], "'fp16' is not one of"),
        (["--compile", "maybe"], "'maybe' is not one of"),
        (["--preset", "best"], "'best' is not one of"),
        (["--n-task", "3"], "Did you mean one of: '--n-tasks'"),
        (["extra"], "unexpected extra argument"),
        (["--set", "epochs=3"], "--set 'epochs=3': write a path, =, and a value, such as train.epochs=3"),
        (["--set", "train.epochs"], "--set 'train.epochs': write a path"),
        (["--set", "=3"], "write a path"),
        (["--set", "a.b=[1"], "--set a.b=[1"),
        (["--set", "a.b=&x [*x]"], "YAML aliases are not allowed"),
        (
            ["--set", "a.b=!!python/object/apply:os.system [ls]"],
            "could not determine a constructor for the tag",
        ),
        (["--config", "absent.yaml"], "Cannot read absent.yaml: No such file or directory"),
        (["--config", "."], "Cannot read .: Is a directory"),
        (["--tracking-uri", "foo://bar", "--dry-run"], "--tracking-uri 'foo://bar' is no address"),
        (["--config", "/dev/zero"], "/dev/zero is larger than 1 MiB"),
    ],
)
def test_wrong_flags_are_refused(refused: Refused, arguments: list[str], sentence: str):
    assert sentence in refused(*arguments)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "protocol: lfs\n# a comment\n\nn_task: 10\n",
            "c.yaml, line 4: unknown key 'n_task'; did you mean n_tasks",
        ),
        ("methods: icarl\n", "c.yaml, line 1: unknown key 'methods'; did you mean method"),
        ("n-tasks: 3\n", "c.yaml, line 1: unknown key 'n-tasks'; did you mean n_tasks"),
        ("n_tasks: ten\n", "c.yaml, line 1: n_tasks = 'ten'"),
        ("n_tasks: 0\n", "c.yaml, line 1: n_tasks = 0"),
        ("n_tasks: 2.5\n", "c.yaml, line 1: n_tasks = 2.5"),
        ("protocol: lfs\nrho: .nan\n", "c.yaml, line 2: rho = nan"),
        ("seeds: [0, 0]\n", "c.yaml, line 1"),
        ("seed: -1\n", "c.yaml, line 1"),
        ("seeds: []\n", "c.yaml, line 1"),
        ("method: []\n", "c.yaml, line 1"),
        ("method: {icarl: 1}\n", "c.yaml, line 1"),
        ("vary: seed\n", "c.yaml, line 1: vary = 'seed'"),
        ("set: [train.epochs=3]\n", "c.yaml, line 1"),
        ("set: 3\n", "c.yaml, line 1"),
        ("protocol: [lfs\n", "c.yaml, line 2"),
        ("protocol: 'lfs\n", "c.yaml, line"),
        ("\tprotocol: lfs\n", "c.yaml, line 1"),
        ("- protocol\n", "c.yaml must hold `key: value` lines"),
        ("just words\n", "c.yaml must hold `key: value` lines"),
        ("3: lfs\n", "c.yaml must hold `key: value` lines"),
        ("protocol: !!python/object/apply:os.system ['touch hacked']\n", "c.yaml, line 1"),
        ("!!python/object:os.system {}\n", "c.yaml, line 1"),
        ("set: {a: 2001-99-99}\n", "c.yaml"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nprotocol: *b\n", "YAML aliases are not allowed"),
        ("protocol: " + "[" * 500_000 + "\n", "c.yaml, line 1: values are nested more than 32 deep"),
        ("- " * 500_000 + "x\n", "c.yaml, line 1: values are nested more than 32 deep"),
        ("rho: !!timestamp soon\n", "c.yaml cannot be read as YAML"),
        ("force: !!bool perhaps\n", "c.yaml cannot be read as YAML"),
        ("protocol: " + "x" * (2 << 20), "c.yaml is larger than 1 MiB"),
        ("protocol: \x00\n", "c.yaml"),
    ],
    ids=lambda text: text[:30],
)
def test_wrong_config_files_are_refused_with_the_line(
    refused: Refused, content: str, sentence: str, tmp_path: Path
):
    (tmp_path / "c.yaml").write_text(content)
    assert sentence in refused("--config", "c.yaml")
    assert not (tmp_path / "hacked").exists()


def test_a_config_that_is_no_text_is_refused(refused: Refused, tmp_path: Path):
    (tmp_path / "c.yaml").write_bytes(b"protocol: \xff\xfe\n")
    assert "c.yaml is not UTF-8 text" in refused("--config", "c.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_config_is_refused(refused: Refused, tmp_path: Path):
    (tmp_path / "c.yaml").write_text("protocol: lfs\n")
    (tmp_path / "c.yaml").chmod(0)
    assert "Cannot read c.yaml: Permission denied" in refused("--config", "c.yaml")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--protocol", "lfz"], "There is no protocol called 'lfz'; did you mean lf"),
        (["--dataset", "cifar10O-lt"], "There is no dataset called 'cifar10O'; did you mean cifar10"),
        (["--dataset", "../../etc"], "dataset"),
        (["--method", "bic", "--memory", "0"], "bic needs an exemplar memory, and --memory 0 leaves none"),
        (["--method", "ssil", "--memory", "0/class"], "ssil needs an exemplar memory"),
        (
            ["--method", "icarl+two_stage+two_stage"],
            "the plug-in two_stage stands there twice; write it once",
        ),
        (["--method", "ssil+class_balanced_sampling"], "brings its own; they cannot be combined"),
        (["--method", "podnet+balanced_softmax"], "podnet brings its own"),
        (["--method", "wa", "--set", "wa.clipp=true"], "wa: unknown key 'clipp'; did you mean clip"),
        (["--method", "wa", "--set", "bic.epochs=3"], "--set bic.epochs: bic is in no --method of this run"),
        (
            ["--set", "train.schedule=cosine", "--set", "train.milestones=[1]"],
            "--set: train: milestones need schedule: multistep",
        ),
        (["--method", "icarrl"], "There is no learner called 'icarrl'; did you mean icarl"),
        (["--method", "icarl+balanced_softmaxx"], "There is no plug-in called 'balanced_softmaxx'"),
        (["--method", "./absent.py"], "There is no file ./absent.py"),
        (["--method", "podnet+lws"], "lws needs a linear head, but podnet has a proxy one"),
        (["--method", "replay+asl"], "asl works on multi labels; this protocol has single ones"),
        (["--method", "lucir+mixup"], "lucir needs one hard label an image (its margin ranking)"),
        (["--method", "replay+more", "--set", "more.amplitude=-1"], "more: amplitude = -1"),
        (["--method", "replay+more", "--set", "more.rank_ratio=2"], "more: rank_ratio = 2"),
        (["--recipe", "papr"], "There is no recipe called 'papr'; did you mean paper"),
        (["--order", "shufled"], "shufled"),
        (["--order", "random:x"], "random:x"),
        (["--n-tasks", "101"], "101"),
        (["--n-tasks", "1" + "0" * 30], "1" + "0" * 30),
        (["--base", "200", "--n-tasks", "5"], "200"),
        (["--sizes", "50,51"], "101"),
        (["--sizes", "100,0"], "0"),
        (["--memory", "20/klass"], "--memory: memory.budget = '20/klass': write N/class, a total N, or 0."),
        (["--memory", "-5", "--set", "train.epochs=3"], "--memory: memory.budget = '-5': write N/class"),
        (["--set", "memory.budget=1.5"], "--set: memory.budget = 1.5"),
        (["--store", "/dev/null", "--dry-run"], "Cannot write to the store /dev/null"),
        (["--memory", "50"], "--memory 50 is less than one exemplar for each of the 100 classes"),
        (["--device", "gpu"], "gpu"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--set", "train.epoch=3"], "unknown key 'train.epoch'; did you mean epochs"),
        (["--set", "trian.epochs=3"], "trian.epochs"),
        (["--set", "train.epochs=many"], "train.epochs"),
        (["--set", "icarl.temprature=3"], "temprature"),
        (["--set", "train.lr=nan"], "lr"),
    ],
)
def test_what_the_harness_cannot_do_is_refused_before_training(
    refused: Refused, arguments: list[str], sentence: str
):
    assert sentence in refused("--no-tracking", *arguments)


def test_a_store_that_cannot_be_written_is_refused(refused: Refused, tmp_path: Path):
    (tmp_path / "occupied").write_text("a file")
    assert f"{tmp_path / 'occupied'}" in refused("--no-tracking", "--store", tmp_path / "occupied")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_refused(refused: Refused, tmp_path: Path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert "Cannot write to the store" in refused("--no-tracking", "--store", tmp_path / "locked")


def test_a_store_of_a_newer_version_is_refused(refused: Refused, tmp_path: Path):
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"version": 99}')
    assert "was made by a newer imbcil-bench (store version 99" in refused("--store", tmp_path / "newer")


@pytest.mark.parametrize("content", ["{", "[]", '{"version": "x"}', ""])
def test_a_damaged_store_mark_is_refused(refused: Refused, tmp_path: Path, content: str):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "store.json").write_text(content)
    assert str(tmp_path / "odd") in refused("--store", tmp_path / "odd")


def test_the_console_script_itself_refuses_without_a_traceback(cli):
    done = cli("run", "--method", "icarrl", "--no-tracking")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: There is no learner called 'icarrl'")
    assert done.stderr.count("\n") == 1
