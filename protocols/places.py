"""Where datasets live on this machine. Imports no numpy, no torch."""

import os
import re
from pathlib import Path

from imbcil.harness.base.errors import BadInput

VARIABLE = "IMBCIL_DATA"
SOURCE_FILE = "source.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def data_root(given: Path | None = None) -> Path:
    """The folder of the cache: `given`, else IMBCIL_DATA, else the user's cache folder. Not created here."""
    if given is not None:
        return given
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("imbcil-bench", appauthor=False) / "data"


def is_plain_name(name: str) -> bool:
    """Whether `name` can name a dataset, and so a folder under the root."""
    return _NAME.fullmatch(name) is not None


def dataset_folder(name: str, root: Path | None = None) -> Path:
    """The folder of one dataset under the root. Raises BadInput for a name that is no plain name."""
    if not is_plain_name(name):
        raise BadInput(
            f"dataset name {name!r}: use up to 64 small letters, digits, dots, hyphens and underscores, "
            "the first one a letter or digit."
        )
    return data_root(root) / name


def imported_names(root: Path | None = None) -> list[str]:
    """Names of the datasets that were imported on this machine, sorted."""
    try:
        folder = data_root(root)
    except ImportError:  # a bare environment without platformdirs can list the catalogue, and has no imports
        return []
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{SOURCE_FILE}"))
