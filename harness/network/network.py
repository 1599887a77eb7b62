"""The network: trunk, backbones, head, auxiliary head and calibrators, rebuilt from a JSON spec at any time."""

from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.batch import Outputs
from imbcil.harness.network.backbones import build_backbone
from imbcil.harness.network.calibration import Calibrator, CalibratorSpec, Where
from imbcil.harness.network.heads import Head, build_head
from imbcil.harness.network.runtime import Runtime


class ModuleSpec(Frozen):
    """A part of a network: its registered kind and constructor options."""

    kind: str
    options: dict[str, Any] = {}


class NetSpec(Frozen):
    """Everything that a network's structure follows from. `splits`: classes per phase; `aux`: outputs of the
    auxiliary head on the last backbone, 0 for none."""

    backbones: tuple[ModuleSpec, ...]
    head: ModuleSpec
    trunk: ModuleSpec | None = None
    aux: int = 0
    calibrators: dict[str, CalibratorSpec] = {}
    splits: tuple[int, ...] = ()

    def with_backbones(self, **options: Any) -> Self:
        """The same network with these constructor options of every backbone changed."""
        parts = [part.model_copy(update={"options": {**part.options, **options}}) for part in self.backbones]
        return self.model_copy(update={"backbones": tuple(parts)})

    def with_head(self, kind: str, **options: Any) -> Self:
        """The same network with another head."""
        return self.model_copy(update={"head": ModuleSpec(kind=kind, options=options)})

    def with_calibrator(self, name: str, spec: CalibratorSpec) -> Self:
        """The same network with one more calibrator, after those it has."""
        return self.model_copy(update={"calibrators": {**self.calibrators, name: spec}})


def starting_spec(backbone: str, options: dict[str, Any]) -> NetSpec:
    """What every learner's design begins with: one backbone and a linear head."""
    return NetSpec(backbones=(ModuleSpec(kind=backbone, options=options),), head=ModuleSpec(kind="linear"))


class Network(nn.Module):
    """Slots `trunk` (optional shared stem), `backbones` (features concatenated), `head`, `aux`, `calibrators`."""

    def __init__(self, spec: NetSpec, runtime: Runtime) -> None:
        super().__init__()
        self._spec = spec
        self.runtime = runtime
        self.wraps: dict[str, list[str]] = {}  # plug-in -> modules that it wraps now
        self.trunk = build_backbone(spec.trunk.kind, **spec.trunk.options) if spec.trunk else None
        self.backbones = nn.ModuleList(build_backbone(part.kind, **part.options) for part in spec.backbones)
        self.head: Head = build_head(spec.head.kind, self.dim, spec.head.options)
        self.calibrators = nn.ModuleDict({name: Calibrator(part) for name, part in spec.calibrators.items()})
        self.aux = nn.Linear(self._dims()[-1], spec.aux) if spec.aux else None
        self._splits: list[int] = []
        for classes in spec.splits:
            self.grow(classes)
        self._place()

    def _dims(self) -> list[int]:
        return [int(backbone.dim) for backbone in self.backbones]  # type: ignore[arg-type]

    def _place(self) -> None:
        self.to(self.runtime.device)
        for part in (self.trunk, *self.backbones):
            if part is not None:
                part.to(memory_format=torch.channels_last)

    @property
    def dim(self) -> int:
        """Length of the concatenated features."""
        return sum(self._dims())

    @property
    def n_classes(self) -> int:
        return sum(self._splits)

    def spec(self) -> NetSpec:
        """The spec that rebuilds this network as it is now."""
        aux = self.aux.out_features if self.aux is not None else 0
        return self._spec.model_copy(update={"splits": tuple(self._splits), "aux": aux})

    def grow(self, classes: int) -> None:
        """Add `classes` new classes to the head and every calibrator. Older logits do not change."""
        self.head.grow(classes)
        for calibrator in self.calibrators.values():
            calibrator.grow(classes)  # type: ignore[operator]
        self._splits.append(classes)
        self._place()

    def add_backbone(self, aux: int = 0, cross: Literal["init", "zero"] = "init", copy: bool = True) -> None:
        """Append a backbone (with `copy`, a copy of the last one) and widen the head in place; its new columns
        are drawn or zero (`cross`). `aux`: outputs of a fresh auxiliary head on the new backbone, 0 for none."""
        part = self._spec.backbones[-1]
        fresh = build_backbone(part.kind, **part.options)
        if copy:
            fresh.load_state_dict(self.backbones[-1].state_dict())
        self.backbones.append(fresh)
        self._spec = self._spec.model_copy(update={"backbones": (*self._spec.backbones, part)})
        self.head.widen(int(fresh.dim), zero_old=cross == "zero")  # type: ignore[arg-type]
        self.aux = nn.Linear(int(fresh.dim), aux) if aux else None  # type: ignore[arg-type]
        self._place()

    def forward(self, images: Tensor) -> Outputs:
        """Raw float32 logits [B, K] and features [B, D], the last backbone's maps, and the head's extras."""
        with self.runtime.precision():
            stem: dict[str, Any] = {"x": images, "maps": []}
            if self.trunk is not None:
                stem = self.runtime.backbone(self.trunk, images)
            parts = [self.runtime.backbone(backbone, stem["x"]) for backbone in self.backbones]
        features = torch.cat([part["features"].float() for part in parts], dim=1)
        maps = [*stem["maps"], *parts[-1]["maps"]]
        extras = self.head(features, maps)
        logits = extras.pop("logits")
        if self.aux is not None:
            extras["aux"] = self.aux(parts[-1]["features"].float())
        return Outputs(logits, features, maps, extras)

    def effective(self, name: str) -> Tensor:
        """The value behind a parameter's name: with what a plug-in adds to it while it wraps the module."""
        owner, _, leaf = name.rpartition(".")
        whole = getattr(self.get_submodule(owner), "whole_weight", None)
        return whole() if leaf == "weight" and whole is not None else self.get_parameter(name)

    def calibrator(self, name: str) -> Calibrator:
        """One of the calibrators, by the name that the design gave it."""
        found = self.calibrators[name]
        assert isinstance(found, Calibrator)
        return found

    def calibrated(self, out: Outputs, where: Where) -> Tensor:
        """Logits [B, K] after the calibrators that are active at `where`, in the order of the spec."""
        logits = out.logits
        for calibrator in self.calibrators.values():
            if where in calibrator.spec.active:  # type: ignore[union-attr, operator]
                logits = calibrator(logits)
        return logits


def clone(net: Network) -> Network:
    """A copy with its own parameters and the same modes. Raises ContractViolation on a wrapped network."""
    if net.wraps:
        raise ContractViolation(
            f"A network wrapped by {', '.join(net.wraps)} cannot be copied; unwrap it first."
        )
    with torch.random.fork_rng(devices=[]):
        copy = Network(net.spec(), net.runtime)
    copy.load_state_dict(net.state_dict())
    for mine, theirs in zip(copy.parameters(), net.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    for module, source in zip(copy.modules(), net.modules(), strict=True):
        module.training = source.training
    return copy


def freeze(net: Network) -> Network:
    """A teacher: a copy in evaluation mode without gradients."""
    return clone(net).eval().requires_grad_(False)
