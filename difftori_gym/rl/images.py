"""What is done to images on their way from replay into the networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from difftori_gym.models import default_shift, observation_kind, random_shift
from difftori_gym.rl.sequence_buffer import SequenceBatch


def has_images(space: spaces.Space[Any]) -> bool:
    """
    :param space: of the observations
    :return: whether they are images or hold some
    """
    if isinstance(space, spaces.Dict):
        return any(observation_kind(entry, key) == "image" for key, entry in space.spaces.items())
    return observation_kind(space) == "image"


def augmented(batch: SequenceBatch, space: spaces.Space[Any], shift: int | None = None) -> SequenceBatch:
    """
    Move the images of every window at random, see :func:`~difftori_gym.models.random_shift`; all images of a window
    alike, so that what happens from one to the next is what happened in the environment.

    TD-MPC moves each on its own, which latent dynamics cannot foresee.

    :param batch: windows
    :param space: of one observation, which tells where the images are
    :param shift: greatest shift in pixels; None for a 21st of the width
    :return: windows with moved images, everything else as it was
    """
    if shift == 0 or not has_images(space):
        return batch
    first, following = batch.observations, batch.next_observations
    if isinstance(first, dict):
        assert isinstance(following, dict)
        assert isinstance(space, spaces.Dict)
        images = [key for key in first if observation_kind(space.spaces[key], key) == "image"]
        moved = {key: _moved(first[key], following[key], shift) for key in images}
        first = {**first, **{key: moved[key][0] for key in images}}
        following = {**following, **{key: moved[key][1] for key in images}}
    else:
        assert not isinstance(following, dict)
        first, following = _moved(first, following, shift)
    return replace(batch, observations=first, next_observations=following)


def _moved(first: Tensor, following: Tensor, shift: int | None) -> tuple[Tensor, Tensor]:
    """Images ``[B, C, ...]`` and ``[B, H, C, ...]`` of the same windows."""
    windows = torch.cat([first[:, None], following], dim=1)  # [B, H + 1, C, ...]
    pad = default_shift(windows.shape[-1]) if shift is None else shift
    moved = random_shift(windows.flatten(1, 2), pad).unflatten(1, windows.shape[1:3])
    return moved[:, 0], moved[:, 1:]


def preprocessed(observation: PyTorchObs, space: spaces.Space[Any], *, normalize_images: bool) -> PyTorchObs:
    """
    Stable-Baselines3's ``preprocess_obs``, faster on images, which it leaves in the channels-last layout.

    :param observation: raw observation tensors, ``[B, ...]`` or a dictionary of such
    :param space: of one observation
    :param normalize_images: whether bytes are divided by 255
    :return: what the networks take
    """
    if isinstance(observation, dict):
        assert isinstance(space, spaces.Dict)
        entries = {}
        for key, value in observation.items():
            entry = preprocessed(value, space.spaces[key], normalize_images=normalize_images)
            assert isinstance(entry, Tensor)
            entries[key] = entry
        return entries
    if observation.dtype == torch.uint8 and observation.ndim == 4 and normalize_images and is_image_space(space):
        # One new tensor instead of three; the layout is changed while there is a quarter of the bytes.
        return observation.contiguous(memory_format=torch.channels_last).float().div_(255.0)
    return preprocess_obs(observation, space, normalize_images=normalize_images)
