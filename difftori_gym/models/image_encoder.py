"""Convolutions that read images, as a feature extractor of Stable-Baselines3's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from difftori_gym.models.mlp import orthogonal_init


class ImageEncoder(BaseFeaturesExtractor):
    """
    The convolutional encoder of TD-MPC (arXiv 2203.04955) and DiffTORI: four layers of 32 channels with kernels 7, 5,
    3, 3 and stride 2, each followed by ReLU, then a linear layer to 50 features.

    A layer whose input is one pixel short of its kernel is padded by one pixel, so that images from 31 x 31 on fit.
    Computes in the channels-last layout, which is the faster one on CPUs and GPUs, and overwrites what ReLU reads: at
    this size, asking the system for memory is a good part of the time.

    :param observation_space: channel-first images ``[C, H, W]``; frames stacked along C
    :param features_dim: number of features; None leaves out the linear layer, which gives what the convolutions give
    :param channels: of every convolution
    :param kernels: kernel sizes
    :param strides: strides, one per kernel
    :param squash: LayerNorm and tanh after the linear layer, as in the trunk of DrQ-v2 (arXiv 2107.09645)
    :raises ValueError: if the space holds no channel-first images, or too small ones
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int | None = 50,
        *,
        channels: int = 32,
        kernels: Sequence[int] = (7, 5, 3, 3),
        strides: Sequence[int] = (2, 2, 2, 2),
        squash: bool = False,
    ) -> None:
        if len(kernels) != len(strides):
            raise ValueError(f"ImageEncoder needs one stride per kernel, got {len(kernels)} and {len(strides)}.")
        in_channels, height, width = _check_images(observation_space)
        layers: list[nn.Module] = []
        for kernel, stride in zip(kernels, strides, strict=True):
            padding = int(min(height, width) < kernel)
            if min(height, width) + padding < kernel:
                raise ValueError(
                    f"ImageEncoder expected images of at least {_smallest(kernels, strides)} x "
                    f"{_smallest(kernels, strides)} pixels for kernels {tuple(kernels)} with strides {tuple(strides)}, "
                    f"got {observation_space.shape}: use larger images or fewer layers."
                )
            layers += [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU(inplace=True)]
            in_channels = channels
            height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        flat_dim = in_channels * height * width
        super().__init__(observation_space, features_dim or flat_dim)
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Identity() if features_dim is None else nn.Linear(flat_dim, features_dim)
        self.apply(orthogonal_init)
        self.squash = nn.Sequential(nn.LayerNorm(self.features_dim), nn.Tanh()) if squash else nn.Identity()

    def forward(self, observations: Tensor) -> Tensor:
        """
        :param observations: images ``[B, C, H, W]``, floats
        :return: features ``[B, features_dim]``
        """
        images = observations.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.squash(self.linear(self.convolutions(images).flatten(1)))
        return features


def _smallest(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """:return: the least side of an image that :class:`ImageEncoder` takes"""
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        # One pixel less is padded; more than one pixel of output needs no padding.
        size = kernel - 1 if size == 1 else kernel + (size - 1) * stride
    return max(size, 1)


def _check_images(space: spaces.Space[Any]) -> tuple[int, int, int]:
    """
    :param space: an observation space
    :return: channels, height, width
    :raises ValueError: unless it holds channel-first images
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 3:
        raise ValueError(
            f"ImageEncoder expected images [channels, height, width], got {space}: use MlpPolicy for vectors and "
            "MultiInputPolicy for dictionaries."
        )
    channels, height, width = space.shape
    if 2 * width < min(channels, height):  # channels of a stack of frames may well be more than pixels in a row
        raise ValueError(
            f"ImageEncoder expected channel-first images [channels, height, width], got the shape {space.shape}: "
            "wrap the environment in stable_baselines3.common.vec_env.VecTransposeImage."
        )
    return channels, height, width
