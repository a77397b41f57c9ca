"""What is drawn on the pictures of a film: captions, planned paths, several environments side by side."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftori_gym.video.files import Image

_WHITE, _GREEN = (255, 255, 255), (120, 255, 120)
_SHADE = (0, 0, 0, 150)
# From the first planned step to the last.
_PATH_START, _PATH_END = np.array([255.0, 230.0, 80.0]), np.array([255.0, 40.0, 40.0])
# Between two words.
_GAP = "   "
# Letters: a sixteenth of a picture's height, but never too small to read.
_MIN_LETTERS, _MAX_LETTERS = 9, 24


@dataclass(frozen=True)
class Caption:
    """
    What is written on one environment's picture.

    :param step: agent steps of the episode so far
    :param total: undiscounted return so far
    :param source: what expects ``value``, ``plan`` or ``critic``; None for nothing
    :param value: discounted return it expects from here on
    :param solved: whether the task was solved in this episode
    """

    step: int
    total: float
    source: str | None = None
    value: float | None = None
    solved: bool = False

    def words(self) -> list[str]:
        """:return: the parts, which are put into lines as they fit"""
        words = [f"step {self.step}", f"return {self.total:.1f}"]
        if self.source is not None and self.value is not None:
            words.append(f"{self.source} {self.value:.1f}")
        return [*words, "success"] if self.solved else words


def write_caption(image: Image, caption: Caption) -> Image:
    """:return: a new image ``[height, width, 3]`` with the caption in its upper left corner"""
    import PIL.Image
    from PIL import ImageDraw

    height, width = image.shape[:2]
    size = min(max(height // 16, _MIN_LETTERS), _MAX_LETTERS)
    font, margin = _font(size), size // 3
    lines: list[list[str]] = [[]]
    for word in caption.words():
        if lines[-1] and font.getlength(_GAP.join([*lines[-1], word])) > width - 2 * margin:
            lines.append([])
        lines[-1].append(word)
    row = size + margin
    shade = PIL.Image.new("RGBA", (width, height), (0, 0, 0, 0))
    ImageDraw.Draw(shade).rectangle((0, 0, width, margin + row * len(lines)), fill=_SHADE)
    picture = PIL.Image.alpha_composite(PIL.Image.fromarray(image).convert("RGBA"), shade).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        column = float(margin)
        for word in line:
            draw.text((column, margin + number * row), word, font=font, fill=_GREEN if word == "success" else _WHITE)
            column += font.getlength(word + _GAP)
    return np.asarray(picture)


@functools.lru_cache
def _font(size: int) -> Any:
    """Pillow's own, which needs no file."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def draw_path(image: Image, pixels: NDArray[np.float64]) -> Image:
    """
    :param image: ``[height, width, 3]``
    :param pixels: column and row of each point of a path ``[K, 2]``; nan where it is out of sight
    :return: a new image with the path, yellow where it begins and red where it ends
    """
    import PIL.Image
    from PIL import ImageDraw

    height, width = image.shape[:2]
    picture = PIL.Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    line = max(round(height / 100), 2)
    # A point far outside the picture would be a line of millions of pixels.
    pixels = np.clip(pixels, -4.0 * max(height, width), 4.0 * max(height, width))
    steps = len(pixels) - 1
    for number, (start, end) in enumerate(itertools.pairwise(pixels)):
        if np.isfinite([start, end]).all():
            share = (number + 1) / steps
            color = tuple(int(part) for part in (1.0 - share) * _PATH_START + share * _PATH_END)
            draw.line((*start, *end), fill=color, width=line)
    if steps and np.isfinite(pixels[-1]).all():
        (column, row), radius = pixels[-1], 1.5 * line
        draw.ellipse((column - radius, row - radius, column + radius, row + radius), fill=tuple(map(int, _PATH_END)))
    return np.asarray(picture)


def tile(images: Sequence[Image]) -> Image:
    """
    :param images: of the same shape ``[height, width, 3]``, one or more
    :return: all in a grid at least as wide as high ``[rows height, columns width, 3]``; black where there are too few
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width = images[0].shape[:2]
    whole = np.zeros((rows * columns, height, width, 3), dtype=np.uint8)
    whole[: len(images)] = images
    return whole.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
