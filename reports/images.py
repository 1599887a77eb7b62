"""Whether a dataset's images are on this machine: the difference between "not run" and "no images here"."""

from imbcil.protocols.catalogue import catalogue, split_name
from imbcil.protocols.places import imported_names


def images_at_hand(dataset: str) -> bool:
    """Whether `dataset` (NAME or NAME-lt) could be run here; embedded data always can."""
    name = split_name(dataset)[0]
    entry = catalogue().get(name)
    if entry is not None and entry.embedded:
        return True
    return (entry.images_of if entry and entry.images_of else name) in imported_names()
