"""What ``render()`` returns, as the bytes that films and pixel observations are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# By which renderers miss the ends of [0, 1].
_ROUNDING = 1e-3


def as_picture(image: Any) -> NDArray[np.uint8]:
    """
    :param image: ``[height, width, 3]``: numbers in [0, 1] if they are floats or truth values, else 0 to 255
    :return: ``[height, width, 3]``, uint8; the same array if it is one already
    :raises ValueError: for another shape, or values out of these ranges, which would be black or wrap around
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3:
        got = "no image" if image.dtype == object else list(image.shape)
        raise ValueError(f"render() must give images of shape [height, width, 3], got {got}.")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "bfiu":
        raise ValueError(f"render() must give images of numbers, got {image.dtype}: return uint8.")
    low, high = image.min(), image.max()
    greatest, slack = (255, 0) if image.dtype.kind in "iu" else (1, _ROUNDING)
    if not (low >= -slack and high <= greatest + slack):  # also where one is no number
        raise ValueError(
            f"render() must give uint8, whole numbers 0 to 255 or floats in [0, 1], got {image.dtype} from {low} to "
            f"{high}: return uint8."
        )
    return image.astype(np.uint8) if greatest == 255 else (255 * np.clip(image, 0, 1)).round().astype(np.uint8)
