"""The files films are written to."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

#: file endings and the packages that write them
FORMATS: dict[str, tuple[str, ...]] = {
    ".mp4": ("imageio", "imageio_ffmpeg", "PIL"),
    ".gif": ("imageio", "PIL"),
}

# Browsers show a frame of a gif for at least 20 ms.
_GIF_MAX_FPS = 50.0


def check_format(path: Path) -> None:
    """
    :param path: file to write
    :raises ValueError: on another ending than those of :data:`FORMATS`
    :raises ImportError: if a package that writes it is missing
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"record_video writes {' or '.join(FORMATS)}, got {path.name!r}.")
    for package in FORMATS[path.suffix.lower()]:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'Films need the package {package}. Run: pip install "difftori-gym[video]"')


@contextlib.contextmanager
def film_writer(path: Path, fps: float) -> Iterator[Any]:
    """
    Write a film that appears under its name only when it is complete; missing folders are made.

    :param path: file to write
    :param fps: images per second
    :return: imageio's writer, whose ``append_data`` takes images ``[height, width, 3]``
    """
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.suffix.lower() == ".gif":
            writer = imageio.get_writer(unfinished, mode="I", duration=_gif_duration(fps), loop=0)
        else:
            writer = imageio.get_writer(unfinished, fps=fps, macro_block_size=2, quality=7)
        with contextlib.closing(writer):  # as a context manager imageio's writer would stay open on errors
            yield writer
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def even_size(image: Image) -> Image:
    """
    Repeat the last row or column where their number is odd: the codec halves the resolution of colour.

    :param image: ``[height, width, 3]``
    :return: ``[height, width, 3]``, height and width even
    """
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def as_gif(path: Path, fps: float, max_images: int) -> bytes:
    """
    A film as an animated picture.

    :param path: film of any of :data:`FORMATS`
    :param fps: its images per second
    :param max_images: a longer one is thinned out, and plays as long as before
    :return: content of a gif file
    """
    import imageio.v3 as imageio

    images = list(imageio.imiter(path))
    stride = -(-len(images) // max_images)
    buffer = io.BytesIO()
    imageio.imwrite(buffer, images[::stride], extension=".gif", duration=_gif_duration(fps / stride), loop=0)
    return buffer.getvalue()


def _gif_duration(fps: float) -> float:
    """
    :param fps: images per second
    :return: milliseconds each image of a gif is shown
    """
    return 1000.0 / min(fps, _GIF_MAX_FPS)
