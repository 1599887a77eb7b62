"""Fetching official archives with torchvision, then importing them like a user's own."""

from pathlib import Path

from imbcil.harness.base.errors import BadInput, MissingData
from imbcil.protocols.cache import CachedDataset
from imbcil.protocols.catalogue import DatasetEntry, catalogue, unknown_dataset
from imbcil.protocols.datasets.cifar import OFFICIAL
from imbcil.protocols.datasets.source import Say
from imbcil.protocols.library import import_dataset
from imbcil.protocols.places import data_root, imported_names

FOLDER = "downloads"


def download_dataset(name: str, root: Path | None, say: Say) -> CachedDataset:
    """Fetch `name` into the data root and import it. Raises MissingData where that is impossible."""
    entry = catalogue().get(name)
    if entry is None:
        raise unknown_dataset(name, imported_names(root))
    if not entry.torchvision or entry.images_of:
        base = entry.images_of or name
        how = (
            "is rendered on first use"
            if entry.embedded
            else f"cannot be downloaded; {entry.wanted} Use `data import {base}`"
        )
        raise BadInput(f"{name} {how}.".replace("..", "."))
    place = data_root(root) / FOLDER
    try:
        place.mkdir(parents=True, exist_ok=True)
        say(f"Downloading {name} to {place}.")
        path = _fetch(name, place, entry)
    except (OSError, RuntimeError) as error:  # no network, a full disk, a checksum that differs
        raise MissingData(
            f"{name} could not be downloaded ({str(error).splitlines()[0]}). Fetch it elsewhere and run "
            f"`imbcil-bench data import {name} --from PATH`. {entry.wanted}"
        ) from None
    return import_dataset(name, path, "auto", root, say)


def _fetch(name: str, place: Path, entry: DatasetEntry) -> Path:
    if name in OFFICIAL:
        return _fetch_cifar(name, place)
    return _fetch_voc(place, entry) if entry.reader == "voc" else _fetch_food101(place)


def _fetch_voc(place: Path, entry: DatasetEntry) -> Path:
    """The development kit of one year, in `place`/VOCdevkit; the test images of 2007 are an archive of their own."""
    from torchvision.datasets import VOCDetection

    for image_set in ("trainval", *(name for name in entry.lists if name == "test")):
        VOCDetection(str(place), year=entry.year, image_set=image_set, download=True)
    return place


def _fetch_cifar(name: str, place: Path) -> Path:
    from torchvision.datasets.utils import download_url

    official = OFFICIAL[name]
    download_url(official.url, str(place), official.archive, official.archive_md5)
    return place / official.archive


def _fetch_food101(place: Path) -> Path:
    from torchvision.datasets import Food101

    Food101(str(place), split="train", download=True)
    return place / "food-101"
