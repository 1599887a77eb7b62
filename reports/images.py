"""Whether a dataset's images are on this machine: the difference between "not run" and "no images here"."""

from pathlib import Path

from imbcil.harness.base.errors import ImbcilError


def images_at_hand(dataset: str, data_root: Path | None = None) -> bool:
    """Whether `dataset` (NAME or NAME-lt) could be run here; embedded data always can."""
    from imbcil.protocols.catalogue import split_name
    from imbcil.protocols.library import is_at_hand

    try:
        return is_at_hand(split_name(dataset)[0], data_root)
    except (ImbcilError, OSError):
        return False
