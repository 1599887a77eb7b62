"""What a finished or running run says about itself: the one record that trackers and tables read."""

from typing import Literal

from imbcil.harness.base.config import Frozen


class PhaseInfo(Frozen):
    """One phase as tables and plots need it; ids count classes in order of arrival."""

    lo: int  # first arrival id of the phase
    hi: int  # one past its last arrival id
    classes: tuple[int, ...]  # original labels, in order of arrival
    train_before_holdout: int
    train: int
    test: int


class RunInfo(Frozen):
    """Identity and description of one run, written once as `run.json` before training starts."""

    schema_version: int = 1
    run_key: str  # 16 hex digits; `-2`, `-3` for further attempts
    attempt: int = 1
    version: str  # of imbcil-bench
    method: str  # "podnet+two_stage", as written
    learner: str
    plugins: tuple[str, ...] = ()
    code: dict[str, str] = {}  # version of learner and plug-ins by name; a user's file by its hash
    seed: int
    vary: tuple[str, ...] = ("model",)  # what the seed changes
    protocol: str  # "lfs"
    column: str  # "lfs-10", "lfh-5", "sizes-50-10"
    dataset: str  # "cifar100-lt"
    order: str  # "shuffled"
    imbalance: str  # "exp rho 100", "none"
    recipe: str
    preset: Literal["released", "sound"]
    memory: str  # "20/class", "2000", "0"
    precision: str
    device: str
    compiled: bool
    digest: str
    family: str
    label_kind: Literal["single", "multi"] = "single"
    label_policy: str = ""  # multi-label: what new images show of their labels
    memory_labels: str = ""  # and what exemplars do
    switches: str = ""  # multi-label: "difficult negative, crowd include"
    class_names: tuple[str, ...]  # by arrival id
    raw_counts: tuple[int, ...]  # by arrival id: images of the profile before the hold-out
    rho100_counts: tuple[
        int, ...
    ] = ()  # the same at rho 100, where the profile is exponential with another rho
    phases: tuple[PhaseInfo, ...]
    predictors: tuple[str, ...] = ()  # as the learner names them; the first is primary
    unranked_predictors: tuple[str, ...] = ()  # such as FOSTER's boosted net
    embedded: bool = False  # rendered data, never ranked beside real data
    upper_bound: bool = False
    weights: str = ""  # what the backbone started from, by name; empty: from scratch
    weights_sha256: str = ""
    trained_on: tuple[str, ...] = ()  # as far as the weights declare it
    leaky_weights: str = (
        ""  # why the weights may know the answers, where they were allowed to; tables mark the row
    )
    oracle_memory: bool = False
    reconstruction: bool = False
    reduced: bool = False  # a recipe with fewer epochs than the published one, or a smoke run
    overrides: dict[str, object] = {}  # what was changed against the named recipe and preset
    settings: dict[str, object] = {}  # learner and plug-in settings, `<name>.<key>`
    command: str = ""  # what a person types to repeat the run
    created_ms: int = 0
    torch_version: str = ""
    hardware: str = ""  # "NVIDIA H200"; of a processor with its threads
