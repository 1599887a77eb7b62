"""What is here: every dataset with its state, and a full check of what is decoded."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imbcil.harness.base.errors import BadInput
from imbcil.protocols.cache import META, CachedDataset, DamagedCache, open_cache
from imbcil.protocols.cache_build import check_cache
from imbcil.protocols.catalogue import catalogue, dataset_names, unknown_dataset
from imbcil.protocols.datasets.source import Say
from imbcil.protocols.library import read_record
from imbcil.protocols.places import SOURCE_FILE, data_root, dataset_folder, imported_names


def inventory(root: Path | None) -> list[dict[str, Any]]:
    """One object a dataset: name, title, classes, images, state, where it came from, a note."""
    return [_item(name, root) for name in dataset_names(root)]


def _item(name: str, root: Path | None) -> dict[str, Any]:
    entry = catalogue().get(name)
    damaged = False
    try:
        record = read_record(dataset_folder(entry.images_of if entry and entry.images_of else name, root))
    except BadInput:  # the others are listed all the same
        record, damaged = None, True
    caches = (
        []
        if record is None
        else list(_caches(name if not (entry and entry.images_of) else entry.images_of, root))
    )
    state = (
        "rendered on first use"
        if entry is not None and entry.embedded
        else f"{SOURCE_FILE} is damaged: import it again"
        if damaged
        else "not here"
        if record is None
        else "imported"
    )
    item: dict[str, Any] = {
        "name": name,
        "title": entry.title if entry else "imported on this machine",
        "state": state,
    }
    if entry is not None:
        item |= {
            "classes": entry.classes,
            "train": entry.n_train,
            "test": entry.n_test,
            "download": entry.torchvision,
            "wanted": entry.wanted,
            "note": entry.note,
        }
    if entry is not None and entry.published is not None:
        item["groups"] = entry.published.model_dump(include={"many", "medium", "few"})
    if caches:
        cached = caches[0]
        item |= {
            "classes": len(cached.meta.class_names),
            "train": len(cached.splits["train"].labels),
            "test": len(cached.splits["test"].labels),
        }
    left_out = {"left_out": len(record.left_out)} if record is not None and record.left_out else {}
    return item | {"from": record.path if record is not None else ""} | left_out


def inventory_lines(items: Sequence[dict[str, Any]]) -> list[str]:
    """The inventory as aligned text."""
    width = max(len(item["name"]) for item in items)
    lines = [f"{'dataset':<{width}}  {'classes':>7}  {'train':>9}  {'test':>7}  state"]
    for item in items:
        counts = [f"{item[key]:,}" if key in item else "?" for key in ("classes", "train", "test")]
        origin = (
            f" from {item['from']}"
            if item["from"]
            else " (`data download` can fetch it)"
            if item.get("download")
            else ""
        )
        lines.append(
            f"{item['name']:<{width}}  {counts[0]:>7}  {counts[1]:>9}  {counts[2]:>7}  {item['state']}{origin}"
            + (f", {item['left_out']:,} broken entries left out" if item.get("left_out") else "")
        )
    return lines


def check_datasets(names: Sequence[str], root: Path | None, say: Say) -> Iterator[str]:
    """Compare every decoded image with its hash; a line for each cache. Damaged images are decoded again on use.

    Raises UnknownName for a name that means nothing, BadInput for one that has no images here.
    """
    known = dataset_names(root)
    for name in names:
        if name not in known:
            raise unknown_dataset(name, imported_names(root))
    found = False
    for name in names or known:
        lines = list(_check_dataset(name, root, say))
        if names and not lines:
            raise BadInput(f"{name} has no decoded images in {data_root(root)}; there is nothing to check.")
        found = found or bool(lines)
        yield from lines
    if not found:
        yield f"Nothing is decoded in {data_root(root)}."


def _check_dataset(name: str, root: Path | None, say: Say) -> Iterator[str]:
    folder = dataset_folder(name, root)
    for meta in sorted(folder.glob(f"*/{META}")):
        try:
            cached = open_cache(meta.parent)
        except DamagedCache as error:
            yield f"{name}: damaged ({error}); it is made again on next use."
            continue
        bad = sum(len(split.damaged()) for split in cached.splits.values())
        done = sum(int(split.hashes.any(axis=1).sum()) for split in cached.splits.values())
        total = sum(len(split.labels) for split in cached.splits.values())
        check_cache(cached, say)
        yield f"{name}: {done:,} of {total:,} images decoded, {bad:,} damaged."


def _caches(name: str, root: Path | None) -> Iterator[CachedDataset]:
    for meta in sorted(dataset_folder(name, root).glob(f"*/{META}")):
        try:
            yield open_cache(meta.parent)
        except DamagedCache:
            continue
