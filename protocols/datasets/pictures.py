"""One picture to one square of pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imbcil.harness.base.errors import BadInput

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

MOST_PIXELS = 100_000_000  # a photograph has fewer; beyond it, it is a decompression bomb


def fit_picture(picture: "Picture", size: int) -> NDArray[np.uint8]:
    """`picture` as [size, size, 3]: short side resized to `size` (antialiased bilinear), centre cut out.

    The rounding is torchvision's (Resize, then CenterCrop), so test images equal the released pipeline's.
    """
    from PIL import Image

    rgb = picture.convert("RGB")
    width, height = rgb.size
    if min(width, height) != size:
        wide, high = (
            (int(size * width / height), size) if width > height else (size, int(size * height / width))
        )
        rgb = rgb.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((rgb.width - size) / 2.0), round((rgb.height - size) / 2.0)
    return np.asarray(rgb.crop((left, top, left + size, top + size)), dtype=np.uint8)


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """The picture in a file as [size, size, 3]. Raises BadInput that names a file which cannot be decoded."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise BadInput(
                    f"{path} has {picture.width} x {picture.height} pixels; that is no training image."
                )
            return fit_picture(picture, size)
    except BadInput:
        raise
    except Exception as error:  # Pillow's plug-ins raise a dozen different types on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{path} cannot be read as a picture: {reason.rstrip('.')}.") from None
