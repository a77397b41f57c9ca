"""What is done to images on their way from replay into the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from difftori_gym.models import observation_kind, shifted_images
from difftori_gym.observations import entries, map_obs
from difftori_gym.rl.sequence_buffer import SequenceBatch


def has_images(space: spaces.Space[Any]) -> bool:
    """:return: whether observations of this space are images or hold some"""
    return any(observation_kind(entry, key) == "image" for key, entry in entries(space).items())


def augmented(batch: SequenceBatch, space: spaces.Space[Any], shift: int | None = None) -> SequenceBatch:
    """
    Move every image of the windows at random, see :func:`~difftori_gym.models.random_shift`; each observation of a
    window on its own, as TD-MPC does.

    :param batch: windows
    :param space: of one observation, which tells where the images are
    :param shift: greatest shift in pixels; None for a 21st of the width
    :return: windows with moved images, everything else as it was
    """
    if shift == 0 or not has_images(space):
        return batch
    return replace(
        batch,
        observations=shifted_images(batch.observations, space, shift),
        next_observations=shifted_images(batch.next_observations, space, shift),
    )


def preprocessed(observation: PyTorchObs, space: spaces.Space[Any], *, normalize_images: bool) -> PyTorchObs:
    """
    Stable-Baselines3's ``preprocess_obs``, faster on images, which it leaves in the channels-last layout.

    :param observation: raw observation tensors, ``[B, ...]`` or a dictionary of such
    :param space: of one observation
    :param normalize_images: whether bytes are divided by 255
    :return: what the networks take
    """
    return map_obs(lambda value, entry: _preprocessed(value, entry, normalize_images), observation, space)


def _preprocessed(observation: Tensor, space: spaces.Space[Any], normalize_images: bool) -> Tensor:
    if observation.dtype == torch.uint8 and observation.ndim == 4 and normalize_images and is_image_space(space):
        # One new tensor instead of three; the layout is changed while there is a quarter of the bytes.
        return observation.contiguous(memory_format=torch.channels_last).float().div_(255.0)
    processed = preprocess_obs(observation, space, normalize_images=normalize_images)
    assert isinstance(processed, Tensor)
    return processed if processed.ndim > 1 else processed[:, None]  # of shape (): networks read vectors
