"""What a person asks for: the long flags of `imbcil-bench run` with underscores, from the line or a file."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from imbcil.harness.base.config import Frozen
from imbcil.protocols.catalogue import find_entry
from imbcil.protocols.splits import parse_split, protocol_names, protocol_rule

DEFAULT_METHODS = ("icarl", "podnet", "foster", "gradient_reweighting")
DEFAULT_MULTI_LABEL_METHODS = ("finetune", "replay", "podnet", "rebll")


class RunRequest(Frozen):
    """One `run`: every method with every seed on one scenario. A stored `config.yaml` is one of these."""

    protocol: str = "lfs"
    dataset: str | None = None  # default: the protocol's
    n_tasks: int | None = Field(default=None, ge=1)
    base: int | None = Field(default=None, ge=0)
    step: int | None = Field(default=None, ge=1)
    split: str | None = None  # B10-C2, the short form of base and step
    sizes: tuple[int, ...] | None = None
    order: str | None = None
    imbalance: Literal["exp", "step", "few-shot", "none"] | None = None
    rho: float | None = Field(default=None, ge=1)
    method: tuple[str, ...] = Field(default=DEFAULT_METHODS, min_length=1)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    vary: Literal["model", "order", "sample", "all"] = "model"
    memory: str | None = None  # 20/class, 2000, 0; default: the recipe's
    recipe: str | dict[str, Any] | None = None  # a name, a YAML file, or the recipe itself
    preset: Literal["released", "sound"] | None = None
    set: dict[str, Any] = {}
    weights: str | None = None  # to start from: a file, torchvision[:VERSION] or timm[:MODEL.TAG]
    allow_leaky_weights: bool = False
    precision: Literal["auto", "fp32", "bf16", "tf32"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    data_root: str | None = None
    store: str | None = None
    tracking_uri: str | None = None
    no_tracking: bool = False
    checkpoint_every: float = Field(default=60.0, ge=0)  # seconds; 0 = after every step
    force: bool = False

    @model_validator(mode="before")
    @classmethod
    def _split_as_base_and_step(cls, content: Any) -> Any:
        """`split: B10-C2` is stored as `base: 10, step: 2`."""
        text = content.get("split") if isinstance(content, dict) else None
        if text is None:
            return content
        given = [key for key in ("base", "step", "n_tasks", "sizes") if content.get(key) is not None]
        if given:
            raise ValueError(f"split and {given[0]} both say how classes are split; give one of them")
        base, step = parse_split(str(text))
        return {**content, "split": None, "base": base, "step": step}

    @model_validator(mode="before")
    @classmethod
    def _methods_of_several_labels(cls, content: Any) -> Any:
        """Where no method is named and images have several labels, learners that take them."""
        if not isinstance(content, dict) or content.get("method") is not None or not _several_labels(content):
            return content
        return {**content, "method": DEFAULT_MULTI_LABEL_METHODS}

    @field_validator("method", "seeds", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0:
            raise ValueError("seeds are 0 or larger")
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is named twice")
        return seeds

    @field_validator("set", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        return {} if value is None else value


def _several_labels(content: dict[str, Any]) -> bool:
    """Whether protocol and dataset, by their names alone, give images several labels."""
    protocol, dataset = content.get("protocol"), content.get("dataset")
    if protocol not in protocol_names():
        return False
    kind = protocol_rule(protocol).label_kind
    entry = find_entry(dataset) if isinstance(dataset, str) else None
    return kind == "multi" or (kind == "any" and entry is not None and entry.label_kind == "multi")
