"""Random shifts of images, the augmentation of DrQ."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor
from torch.nn import functional as F

from difftori_gym.models.observation_kind import observation_kind
from difftori_gym.observations import TensorObs, entries, from_entries

#: DrQ moves images of 84 x 84 by up to 4 pixels; TD-MPC's code scales that with the size of the image.
PIXELS_PER_SHIFT = 21


def random_shift(images: Tensor, pad: int, generator: torch.Generator | None = None) -> Tensor:
    """
    Move every image by up to ``pad`` whole pixels along each axis; pixels at the edges are repeated (DrQ, arXiv
    2004.13649).

    All channels of an image, so all frames of a stack, move alike. Nothing is interpolated.

    :param images: ``[B, C, H, W]`` of any type
    :param pad: greatest shift in pixels, at least 0
    :param generator: randomness; torch's global one if None
    :return: moved images ``[B, C, H, W]`` of the same type, on a CPU a view of a larger tensor
    :raises ValueError: for a negative ``pad``
    """
    if pad < 0:
        raise ValueError(f"random_shift needs pad >= 0, got {pad}.")
    if pad == 0:
        return images
    batch, channels = images.shape[:2]
    shifts = torch.randint(0, 2 * pad + 1, (2, batch), generator=generator, device=images.device)
    if images.device.type != "cpu":  # one kernel, for every type of number
        return picked(images, shifts - pad)
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate").contiguous()
    row, plane = padded.stride(2), padded.stride(1)
    # In the flat memory of the padded images, moving one is to start reading it later. So a moved image is one
    # unbroken stretch, and index_select copies it as such: three times faster than picking rows and columns.
    offset = shifts[0] * row + shifts[1]
    latest = 2 * pad * (row + 1)
    stretch = channels * plane - latest
    starts = torch.arange(batch, device=images.device) * (channels * plane) + offset
    stretches = padded.as_strided(((batch - 1) * channels * plane + latest + 1, stretch), (1, 1))
    return stretches.index_select(0, starts).as_strided(images.shape, (stretch, plane, row, 1))


def picked(images: Tensor, shifts: Tensor) -> Tensor:
    """
    Rows and columns of every image, those beyond its edges being the edges' own.

    :param images: ``[B, C, H, W]``
    :param shifts: how much further down and right each image is read, ``[2, B]``
    :return: the images that are read, ``[B, C, H, W]``
    """
    batch, channels, height, width = images.shape
    rows, columns = (
        (torch.arange(size, device=images.device) + shift[:, None]).clamp(0, size - 1)
        for size, shift in zip((height, width), shifts, strict=True)
    )
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def default_shift(width: int) -> int:
    """Greatest shift of images so wide, in pixels: 4 at 84, in proportion for others."""
    return width // PIXELS_PER_SHIFT


def shifted_images(observations: TensorObs, space: spaces.Space[Any], shift: int | None = None) -> TensorObs:
    """
    Move every image at random by up to ``shift`` pixels (None: a 21st of the width), each observation of a window on
    its own.

    Observations are ``[..., C, H, W]``, or a dictionary of such; ``space`` of one observation tells where the images
    are. Everything else stays as it was, as in TD-MPC.
    """
    expected = entries(space)
    return from_entries(
        {
            key: _moved(value, shift) if observation_kind(expected[key], key) == "image" else value
            for key, value in entries(observations).items()
        }
    )


def _moved(images: Tensor, shift: int | None) -> Tensor:
    flat = images.flatten(0, -4)
    pad = default_shift(images.shape[-1]) if shift is None else shift
    return random_shift(flat, pad).reshape(images.shape)
