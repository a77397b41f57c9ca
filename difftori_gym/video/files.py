"""The files films are written to."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
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

# A gif counts in hundredths of a second, and browsers show an image for at least two of them.
_GIF_UNITS = 100.0
_GIF_MIN_UNITS = 2


def check_format(path: Path) -> None:
    """
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

    :return: imageio's writer, whose ``append_data`` takes images ``[height, width, 3]``
    """
    import imageio.v2 as imageio

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        if path.suffix.lower() == ".gif":
            writer: Any = _RealTimeGif(unfinished, fps)
        else:
            writer = imageio.get_writer(unfinished, fps=fps, macro_block_size=2, quality=7)
        with contextlib.closing(writer):  # as a context manager imageio's writer would stay open on errors
            yield writer
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


class _RealTimeGif:
    """
    Images of one duration that a gif can have: some are written twice or left out, so that the film takes its time.
    """

    def __init__(self, path: Path, fps: float) -> None:
        import imageio.v2 as imageio

        units = max(_GIF_MIN_UNITS, int(_GIF_UNITS / fps + 1e-6))
        self._writer: Any = imageio.get_writer(path, mode="I", duration=1000 * units / _GIF_UNITS, loop=0)
        self.close = self._writer.close
        self._due_per_image = _GIF_UNITS / (fps * units)
        self._seen, self._written = 0, 0

    def append_data(self, image: Image) -> None:
        self._seen += 1
        while self._written < math.ceil(self._seen * self._due_per_image - 1e-6):
            self._writer.append_data(image)
            self._written += 1


def even_size(image: Image) -> Image:
    """Repeat the last row or column where their number is odd: the codec halves the resolution of colour."""
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
    unit = 1000.0 / _GIF_UNITS
    if path.suffix.lower() == ".gif":  # images that look alike are stored once, and shown for longer
        shown = np.array([imageio.immeta(path, index=index)["duration"] / unit for index in range(len(images))])
    else:
        shown = np.full(len(images), _GIF_UNITS / fps)
    stride = max(-(-len(images) // max_images), math.ceil(_GIF_MIN_UNITS / shown.mean() - 1e-6))
    ends = np.append(np.cumsum(shown)[stride - 1 : -1 : stride], shown.sum())
    durations = (unit * np.diff(ends.round(), prepend=0)).tolist()
    buffer = io.BytesIO()
    imageio.imwrite(buffer, images[::stride], extension=".gif", duration=durations, loop=0)
    return buffer.getvalue()
