"""A protocol applied to one dataset and one order: the immutable sequence of phases that a run goes through."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput
from imbcil.protocols import identity
from imbcil.protocols.arrange import Arrangement, DatasetLabels, MultiTargets, ScenarioPhase, arrange
from imbcil.protocols.arrange_multi import arrange_multi
from imbcil.protocols.cache import CachedDataset
from imbcil.protocols.catalogue import (
    LONG_TAIL,
    DatasetEntry,
    catalogue,
    default_recipe,
    find_entry,
    split_name,
)
from imbcil.protocols.datasets.source import Images, Say
from imbcil.protocols.imbalance import profile_text
from imbcil.protocols.library import decode_rows, open_dataset, peek_dataset
from imbcil.protocols.settings import ProtocolSettings
from imbcil.protocols.splits import column_name, protocol_rule

__all__ = [
    "ImageArrays",
    "Scenario",
    "ScenarioPhase",
    "build_scenario",
    "default_recipe",
    "labels_of",
    "preview_scenario",
]


@dataclass(frozen=True)
class ImageArrays:
    """Decoded images, memory-mapped and read-only, with ORIGINAL labels."""

    train: Images  # [N, S, S, 3]; S is the stored size, at least `size`; only the scenario's rows are decoded
    test: Images  # [M, S, S, 3]
    train_labels: NDArray[np.int64]  # [N]
    test_labels: NDArray[np.int64]  # [M]
    mean: tuple[float, float, float]  # per channel, in 0..1
    std: tuple[float, float, float]
    size: int  # side in pixels of what the network sees
    train_targets: NDArray[np.uint8] | None = None  # [N, C] of multi-label data: 1, 0, 255 for ignored cells
    test_targets: NDArray[np.uint8] | None = None  # [M, C]; columns in the ORIGINAL order


@dataclass(frozen=True)
class Scenario:
    """What a run learns, phase by phase. Two runs compare only if their digests or their families agree."""

    settings: ProtocolSettings
    column: str  # "lfs-10"
    dataset: str  # "cifar100-lt"
    label_kind: str  # "single"; "multi": phases share images, see arrange_multi
    order: tuple[int, ...]  # arrival id -> original label
    class_names: tuple[str, ...]  # by arrival id
    raw_counts: NDArray[np.int64]  # [C] by arrival id: training images of the profile, before the hold-out
    phases: tuple[ScenarioPhase, ...]
    digest: str | None  # None where the images are not at hand
    family: str | None  # the digest without the axes that the seed varies
    embedded: bool  # rendered data, never ranked beside real data
    imbalance_text: str  # "exp rho 100"
    images: ImageArrays | None
    arrival_id: NDArray[np.int64]  # [C] original label -> arrival id
    switches: Mapping[str, str] = field(default_factory=dict)  # "multi": difficult and crowd as applied
    rho100_counts: NDArray[np.int64] | None = None  # [C] by arrival id: the exp profile's sizes at rho 100


def build_scenario(
    settings: ProtocolSettings,
    *,
    data_root: Path | None = None,
    need_images: bool = True,
    say: Say | None = None,
) -> Scenario:
    """Apply a protocol to a dataset.

    need_images: raise MissingData where the images are not on this machine; without it, sizes then come from
    the catalogue's counts (where it has them), `images`, `digest` and `family` are None, and row numbers count an
    imagined listing in label order. say: takes one line of text at a time (default: stderr). Raises BadInput and
    UnknownName for settings that cannot be met.
    """
    say = say or _to_stderr
    name = split_name(settings.dataset)[0]
    entry = catalogue().get(name)
    size = settings.data.resize or settings.data.size
    counted = entry is not None and entry.train_per_class > 0  # sizes are known without any file
    cached = (peek_dataset if counted and not need_images else open_dataset)(name, data_root, say, size)
    if cached is not None:
        splits = cached.splits
        labels = DatasetLabels(
            splits["train"].labels,
            splits["test"].labels,
            cached.meta.class_names,
            splits["train"].targets,
            splits["test"].targets,
        )
    else:
        assert entry is not None  # what is merely peeked at is counted
        labels = DatasetLabels.from_counts(entry)
    _check_label_kind(settings, name, labels)
    arranged = (arrange if labels.train_codes is None else arrange_multi)(settings, entry, labels)
    if cached is not None:
        wanted = {"train": arranged.train_rows(), "test": arranged.test_rows()}
        if need_images:
            cached = decode_rows(name, data_root, cached, wanted, say)
        if any(len(cached.splits[split].missing(rows)) for split, rows in wanted.items()):
            cached = None  # not decoded yet: sizes are known, images are not
    return _assemble(settings, entry, name, labels, arranged, cached)


def labels_of(protocol: str, dataset: str, data_root: Path | None = None) -> str:
    """ "single" or "multi": how many labels an image has when a protocol meets a dataset, by their names alone.

    Only where the protocol takes both kinds and the dataset is the user's own are its labels looked at.
    """
    kind = protocol_rule(protocol).label_kind
    if kind != "any":
        return kind
    entry = find_entry(dataset)
    if entry is not None:
        return entry.label_kind
    cached = peek_dataset(split_name(dataset)[0], data_root, _to_stderr)
    return "single" if cached is None or cached.splits["train"].targets is None else "multi"


def preview_scenario(
    settings: ProtocolSettings, *, data_root: Path | None = None, say: Say | None = None
) -> Scenario:
    """`build_scenario` for looking: renders embedded data, but decodes nothing that takes long."""
    entry = find_entry(settings.dataset)
    embedded = entry is not None and entry.embedded
    return build_scenario(settings, data_root=data_root, need_images=embedded, say=say)


def _assemble(
    settings: ProtocolSettings,
    entry: DatasetEntry | None,
    name: str,
    labels: DatasetLabels,
    arranged: Arrangement,
    cached: CachedDataset | None,
) -> Scenario:
    digest, family, images = None, None, None
    if cached is not None:
        images = _image_arrays(cached, entry, settings, arranged.targets)
        hashes = identity.Hashes(cached.splits["train"].hashes, cached.splits["test"].hashes, images.size)
        digest = identity.digest(hashes, labels, arranged, settings)
        family = identity.family(hashes, labels, arranged, settings)
    return Scenario(
        settings=settings,
        column=column_name(settings, arranged.sizes),
        dataset=name if arranged.kind == "none" else name + LONG_TAIL,
        label_kind="single" if arranged.targets is None else "multi",
        order=arranged.order,
        class_names=tuple(labels.names[label] for label in arranged.order),
        raw_counts=np.array([len(arranged.kept[label]) for label in arranged.order], dtype=np.int64),
        phases=arranged.phases,
        digest=digest,
        family=family,
        embedded=bool(entry and entry.embedded),
        imbalance_text=profile_text(arranged.kind, arranged.rho),
        images=images,
        arrival_id=np.argsort(np.asarray(arranged.order)).astype(np.int64),
        switches=_switches(arranged.targets),
        rho100_counts=None if arranged.rho100 is None else arranged.rho100[list(arranged.order)],
    )


def _switches(targets: MultiTargets | None) -> dict[str, str]:
    return {} if targets is None else {"difficult": targets.difficult, "crowd": targets.crowd}


def _check_label_kind(settings: ProtocolSettings, name: str, labels: DatasetLabels) -> None:
    """Refuse a protocol on images with another kind of labels."""
    multi = labels.train_codes is not None
    if protocol_rule(settings.protocol).label_kind not in ("any", "multi" if multi else "single"):
        has, use = ("several labels", "mlcil") if multi else ("one label", "lfs")
        raise BadInput(
            f"{settings.protocol} is not made for {name}, whose images have {has} each; use --protocol {use}."
        )
    for switch in ("difficult", "crowd"):
        if not multi and getattr(settings.data, switch) is not None:
            raise BadInput(f"data.{switch} has no meaning for {name}, whose images have one label each.")


def _image_arrays(
    cached: CachedDataset,
    entry: DatasetEntry | None,
    settings: ProtocolSettings,
    targets: MultiTargets | None,
) -> ImageArrays:
    stored = cached.splits["train"].images.shape[1]
    size = settings.data.size or min(stored, entry.size if entry else stored)
    if size > stored:
        raise BadInput(f"data.size = {size}: images of {settings.dataset} are stored at {stored} pixels.")
    return ImageArrays(
        train=cached.splits["train"].images,
        test=cached.splits["test"].images,
        train_labels=cached.splits["train"].labels,
        test_labels=cached.splits["test"].labels,
        mean=cached.meta.mean if entry is None or entry.mean is None else entry.mean,
        std=cached.meta.std if entry is None or entry.std is None else entry.std,
        size=size,
        train_targets=None if targets is None else targets.train,
        test_targets=None if targets is None else targets.test,
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
