"""What is done to images on their way from replay into the networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor

from difftori_gym.models import default_shift, observation_kind, random_shift
from difftori_gym.rl.sequence_buffer import SequenceBatch, TensorObs


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
    Move every image of the windows at random, see :func:`~difftori_gym.models.random_shift`; each observation of a
    window on its own, as TD-MPC does.

    :param batch: windows
    :param space: of one observation, which tells where the images are
    :param shift: greatest shift in pixels; None for a 21st of the width
    :return: windows with moved images, everything else as it was
    """
    if shift == 0 or not has_images(space):
        return batch
    first, following = batch.observations, batch.next_observations
    return replace(
        batch,
        observations=_on_images(lambda image: _move(image, shift), first, space),
        next_observations=_on_images(
            lambda image: _move(image.flatten(0, 1), shift).unflatten(0, image.shape[:2]), following, space
        ),
    )


def _move(images: Tensor, shift: int | None) -> Tensor:
    return random_shift(images, default_shift(images.shape[-1]) if shift is None else shift)


def _on_images(change: Callable[[Tensor], Tensor], observations: TensorObs, space: spaces.Space[Any]) -> TensorObs:
    if isinstance(observations, dict):
        assert isinstance(space, spaces.Dict)
        return {
            key: change(value) if observation_kind(space.spaces[key], key) == "image" else value
            for key, value in observations.items()
        }
    return change(observations)


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
    processed = preprocess_obs(observation, space, normalize_images=normalize_images)
    assert isinstance(processed, Tensor)
    return processed if processed.ndim > 1 else processed[:, None]  # of shape (): networks read vectors
