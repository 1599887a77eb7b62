"""Digest and family: hashes of everything that makes two scenarios the same."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imbcil.protocols.arrange import Arrangement, DatasetLabels
from imbcil.protocols.cache import array_hash
from imbcil.protocols.settings import ProtocolSettings

VERSION = 1  # raise it when the meaning of a digest changes


@dataclass(frozen=True)
class Hashes:
    """Hashes [N, 16] of the decoded images of each split, and the size they are seen at."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    size: int


def digest(hashes: Hashes, labels: DatasetLabels, arranged: Arrangement, settings: ProtocolSettings) -> str:
    """sha256 over labels, order, every phase's indices and decoded images, and switches (64 hex digits)."""
    phases = [
        {
            "train": array_hash(phase.train),
            "held out": array_hash(phase.holdout),
            "test": array_hash(phase.test),
            "train images": array_hash(hashes.train[phase.train_before_holdout]),
            "test images": array_hash(hashes.test[phase.test]),
        }
        for phase in arranged.phases
    ]
    parts = {**_switches(hashes, labels, arranged, settings), "order": arranged.order, "phases": phases}
    if arranged.targets is not None:
        parts["test images"] = array_hash(hashes.test)  # those without a class of any phase are scored too
    return _hash(parts)


def family(
    hashes: Hashes,
    labels: DatasetLabels,
    arranged: Arrangement,
    settings: ProtocolSettings,
) -> str:
    """The digest's inputs without the axes that the seed varies; the digest itself when it varies none."""
    varied = [axis for axis in ("order", "sample") if axis in settings.vary]
    if not varied:
        return digest(hashes, labels, arranged, settings)
    parts = _switches(hashes, labels, arranged, settings)
    parts |= {"varied": varied, "order rule": settings.order}
    if arranged.test_fixed:
        parts["test images"] = array_hash(hashes.test[np.sort(arranged.test_rows())])
    if "order" not in varied:
        parts["order"] = arranged.order
    if "sample" not in varied and arranged.train_fixed:
        parts["kept"] = [array_hash(rows) for rows in arranged.kept]
        parts["train images"] = array_hash(hashes.train[np.sort(arranged.train_rows())])
    return _hash(parts)


def _switches(
    hashes: Hashes, labels: DatasetLabels, arranged: Arrangement, settings: ProtocolSettings
) -> dict[str, object]:
    return {
        **_several_labels(arranged),
        "version": VERSION,
        "size": hashes.size,
        "labels": [array_hash(labels.train), array_hash(labels.test)],
        "sizes": arranged.sizes,
        "profile": [arranged.kind, arranged.rho if arranged.kind != "none" else None],
        "holdout": [settings.data.holdout, arranged.quirk],
    }


def _several_labels(arranged: Arrangement) -> dict[str, object]:
    """Targets and switches of several labels an image; nothing for one label."""
    targets = arranged.targets
    if targets is None:
        return {}
    return {
        "targets": [array_hash(targets.train), array_hash(targets.test)],
        "difficult": targets.difficult,
        "crowd": targets.crowd,
    }


def _hash(parts: Mapping[str, object]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
