"""What rows are called in tables: the learner's name, or its short form where a paper has one."""

from importlib.resources import files

from imbcil.harness.base.yaml_files import parse_yaml
from imbcil.reports.grouping import RowKey


def short_names() -> dict[str, str]:
    """Learner -> its short form, from `layouts/labels.yaml`."""
    text = files("imbcil.reports.layouts").joinpath("labels.yaml").read_text(encoding="utf-8")
    return {name: str(short) for name, short in parse_yaml(text, "labels.yaml").items()}


def row_label(key: RowKey, short: dict[str, str]) -> str:
    """`DGR+balanced_softmax`, `icarl (fc)`, `icarl [temperature=4]`."""
    learner, *plugins = key.method.split("+")
    name = "+".join([short.get(learner, learner), *plugins])
    variant = ", ".join(
        f"{setting.split('.', 1)[-1]}={value.strip(chr(34))}" for setting, value in key.variant
    )
    predictor = f" ({key.predictor})" if key.predictor else ""
    return f"{name}{f' [{variant}]' if variant else ''}{predictor}"


def row_tags(key: RowKey) -> tuple[str, ...]:
    """What a reader must know about a row before comparing it."""
    tags = {
        "upper bound": key.upper_bound,
        "oracle memory": key.oracle_memory,
        "not ranked": key.unranked,
        "recon": key.reconstruction,
        "leaky weights": key.leaky,
        key.origin: bool(key.origin),
    }
    return tuple(tag for tag, holds in tags.items() if holds)


def legend(methods: set[str], short: dict[str, str]) -> list[str]:
    """`DGR is gradient_reweighting.` for every short form in use."""
    used = sorted({method.split("+")[0] for method in methods} & short.keys())
    return [f"{short[name]} is {name}." for name in used]
