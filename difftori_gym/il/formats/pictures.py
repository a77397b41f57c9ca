"""Images as compressed pictures, as Minari keeps them."""

from __future__ import annotations

import io

import numpy as np
from gymnasium import spaces

IMAGE_SIDE = 32  # Minari: a smaller array of bytes is not taken for an image
PICTURE_CHANNELS = (1, 3, 4)  # what a PNG can hold


def is_picture(space: spaces.Space) -> bool:
    """:return: whether Minari expects observations of this space as compressed pictures"""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and min(space.shape[:2]) >= IMAGE_SIDE
        and bool((space.low == 0).all() and (space.high == 255).all())
    )


def encode(image: np.ndarray) -> np.ndarray:
    """
    :param image: ``[H, W]`` or ``[H, W, C]`` of 1, 3 or 4 channels
    :return: the bytes of a PNG file
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, format="PNG", compress_level=1)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def decode(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """
    :param rows: the bytes of ``T`` files of any picture format
    :param shape: of a picture
    :return: the pictures, ``[T, *shape]``
    :raises OSError: if a row is no picture
    :raises ValueError: if a picture is of another shape
    """
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(row.tobytes()))).reshape(shape) for row in rows])
