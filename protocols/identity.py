"""Digest and family: hashes of everything that makes two scenarios the same."""

import hashlib
import json
from collections.abc import Mapping

from imbcil.protocols.arrange import Arrangement, DatasetLabels
from imbcil.protocols.cache import CacheMeta, array_hash
from imbcil.protocols.settings import ProtocolSettings

VERSION = 1  # raise it when the meaning of a digest changes


def digest(
    meta: CacheMeta, labels: DatasetLabels, arranged: Arrangement, settings: ProtocolSettings, size: int
) -> str:
    """sha256 over decoded images, labels, order, every phase's indices, and switches (64 hex digits)."""
    return _hash(
        {**_fixed(meta, labels, arranged, settings, size), **_by_order(arranged), **_by_sample(arranged)}
    )


def family(
    meta: CacheMeta,
    labels: DatasetLabels,
    arranged: Arrangement,
    settings: ProtocolSettings,
    size: int,
    rank_by_label: bool,
) -> str:
    """The digest's inputs without the axes that the seed varies; equal to the digest when it varies none.

    rank_by_label: whether a class keeps the same images under every order.
    """
    varied = [axis for axis in ("order", "sample") if axis in settings.vary]
    if not varied:
        return digest(meta, labels, arranged, settings, size)
    parts = _fixed(meta, labels, arranged, settings, size)
    if "order" not in varied:
        parts |= _by_order(arranged)
        parts["phases"] = None  # their images are sampled anew
    elif "sample" not in varied and rank_by_label:
        parts["kept"] = [array_hash(rows) for rows in arranged.kept]
    return _hash({**parts, "varied": varied, "order rule": settings.order})


def _fixed(
    meta: CacheMeta, labels: DatasetLabels, arranged: Arrangement, settings: ProtocolSettings, size: int
) -> dict[str, object]:
    return {
        "version": VERSION,
        "images": [meta.train.sha256, meta.test.sha256],
        "stored": [meta.train.shape, meta.test.shape],
        "seen size": size,
        "labels": [array_hash(labels.train), array_hash(labels.test)],
        "sizes": arranged.sizes,
        "profile": [arranged.kind, arranged.rho if arranged.kind != "none" else None],
        "holdout": [settings.data.holdout, arranged.quirk],
    }


def _by_order(arranged: Arrangement) -> dict[str, object]:
    return {"order": arranged.order}


def _by_sample(arranged: Arrangement) -> dict[str, object]:
    """Indices of every phase."""
    return {
        "phases": [
            [
                array_hash(rows)
                for rows in (phase.train_before_holdout, phase.train, phase.holdout, phase.test)
            ]
            for phase in arranged.phases
        ]
    }


def _hash(parts: Mapping[str, object]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
