"""Images that lie in memory as one array."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from imbcil.protocols.datasets.pictures import fit_picture
from imbcil.protocols.datasets.source import Images, Rows, SplitSource


def array_split(images: Images, labels: NDArray[np.int64], size: int) -> SplitSource:
    """A split over images [N, H, W, 3]; those of another size are resized when they are decoded."""

    def piece(rows: Rows) -> partial[Images]:
        return partial(_fit, images[rows], size)

    return SplitSource(labels, piece)


def _fit(images: Images, size: int) -> Images:
    """Images [n, size, size, 3]."""
    if images.shape[1:3] == (size, size):
        return images
    from PIL import Image

    return np.stack([fit_picture(Image.fromarray(image), size) for image in images])
