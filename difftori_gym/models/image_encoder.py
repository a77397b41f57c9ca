"""Convolutions that read images, as a feature extractor of Stable-Baselines3's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from difftori_gym.models.mlp import orthogonal_init

# Images of a batch that its running mean takes in: enough, for it looks back on a thousand batches, and fast.
_OBSERVED = 16

FRAME_DIM = 32
"""Features of one frame, where frames are read one by one."""
FLOW_SCALE = 5.0
"""Factor on their differences, which are small beside the features themselves."""


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
    :param whiten: images are whitened first, see :class:`WhitenedConv2d`
    :param flow: number of frames stacked in an image, each of which is read alone; the linear layer gets 32 features of
        the last one and their differences from frame to frame, from which velocities are easier to tell than from a
        stack (Flare, arXiv 2101.01857). None reads the stack as one image.
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
        whiten: bool = False,
        flow: int | None = None,
    ) -> None:
        if len(kernels) != len(strides):
            raise ValueError(f"ImageEncoder needs one stride per kernel, got {len(kernels)} and {len(strides)}.")
        in_channels, height, width = _check_images(observation_space)
        if flow is not None:
            if flow < 1 or in_channels % flow:
                raise ValueError(
                    f"ImageEncoder expected flow to be a number of frames that divides {in_channels} channels, got "
                    f"{flow}: give the number of stacked frames, or None."
                )
            in_channels //= flow
        shape = in_channels, height, width
        layers: list[nn.Module] = []
        for kernel, stride in zip(kernels, strides, strict=True):
            padding = int(min(height, width) < kernel)
            if min(height, width) + padding < kernel:
                raise ValueError(
                    f"ImageEncoder expected images of at least {_smallest(kernels, strides)} x "
                    f"{_smallest(kernels, strides)} pixels for kernels {tuple(kernels)} with strides {tuple(strides)}, "
                    f"got {observation_space.shape}: use larger images or fewer layers."
                )
            if whiten and not layers:
                layers.append(WhitenedConv2d(shape, channels, kernel, stride, padding))
            else:
                layers.append(nn.Conv2d(in_channels, channels, kernel, stride, padding))
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
            height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
        flat_dim = in_channels * height * width
        if flow is not None:
            layers += [nn.Flatten(), nn.Linear(flat_dim, FRAME_DIM), nn.LayerNorm(FRAME_DIM)]
            flat_dim = flow * FRAME_DIM
        super().__init__(observation_space, features_dim or flat_dim)
        self.flow = flow
        self.convolutions = nn.Sequential(*layers)
        self.linear = nn.Identity() if features_dim is None else nn.Linear(flat_dim, features_dim)
        self.apply(orthogonal_init)
        self.squash = nn.Sequential(nn.LayerNorm(self.features_dim), nn.Tanh()) if squash else nn.Identity()

    def forward(self, observations: Tensor) -> Tensor:
        """Images ``[B, C, H, W]``, floats -> features ``[B, features_dim]``."""
        if self.flow is None:
            read = self._read(observations)
        else:
            frames = observations.unflatten(1, (self.flow, -1)).flatten(0, 1)  # [B * flow, C / flow, H, W]
            each = self._read(frames).unflatten(0, (-1, self.flow))  # [B, flow, FRAME_DIM]
            read = torch.cat([each[:, -1:], FLOW_SCALE * each.diff(dim=1)], dim=1).flatten(1)
        return self.squash(self.linear(read))

    def _read(self, images: Tensor) -> Tensor:
        read: Tensor = self.convolutions(images.contiguous(memory_format=torch.channels_last))
        return read.flatten(1)


class WhitenedConv2d(nn.Conv2d):
    """
    A convolution of whitened images: minus their mean image, the channels mixed to have unit variance and no
    correlation.

    The buffers are called ``running_...``, by which Stable-Baselines3's SAC and TD3 tell what their target networks
    take over as it is.

    Where little moves before a background that stays, as in DeepMind Control, what moves is a small part of the
    numbers, and what tells velocities, the differences between stacked frames, an even smaller one. Convolutions of
    plain images need thousands of updates to see it. Mean and covariance are those of the images seen in training
    mode, as in batch normalisation: equally weighted at first, a moving average over 1000 batches later. In evaluation
    mode they stand still.

    :param shape: of an image, ``[C, H, W]``
    :param out_channels: as in ``torch.nn.Conv2d``, like the rest
    """

    running_mean: Tensor
    running_covariance: Tensor
    running_whitening: Tensor
    running_batches: Tensor

    def __init__(
        self, shape: tuple[int, int, int], out_channels: int, kernel_size: int, stride: int, padding: int
    ) -> None:
        super().__init__(shape[0], out_channels, kernel_size, stride, padding)
        self.register_buffer("running_mean", torch.zeros(1, *shape).contiguous(memory_format=torch.channels_last))
        self.register_buffer("running_covariance", torch.eye(shape[0]))
        self.register_buffer("running_whitening", torch.eye(shape[0]))  # its inverse square root
        self.register_buffer("running_batches", torch.zeros(1))  # a float, because whole state dicts are averaged

    def forward(self, input: Tensor) -> Tensor:
        """Images ``[B, C, H, W]``, floats -> what the convolution of the whitened images gives."""
        if self.training:
            self._observe(input.detach()[:_OBSERVED])
        # A convolution is linear: its weights are mixed and its output is centred instead of its input, which has many
        # times more numbers.
        # Copies: between a forward pass and its backward pass there may be another one, which changes the statistics.
        weight = torch.einsum("oihw,ic->ochw", self.weight, self.running_whitening.clone())
        convolved = self._conv_forward(input, weight, None)
        centre = self._conv_forward(self.running_mean.clone(), weight, None)
        assert self.bias is not None
        return convolved + (self.bias[:, None, None] - centre)

    @torch.no_grad()
    def _observe(self, images: Tensor) -> None:
        self.running_batches += 1
        rate = (1.0 / self.running_batches).clamp(min=1e-3)
        self.running_mean += rate * (images.mean(0) - self.running_mean)
        pixels = (images - self.running_mean).movedim(1, -1).flatten(0, -2)  # [B H W, C]
        self.running_covariance += rate * (pixels.T @ pixels / len(pixels) - self.running_covariance)
        values, vectors = torch.linalg.eigh(self.running_covariance)
        # A deviation of less than a hundredth of the range would be noise made large.
        self.running_whitening.copy_(vectors @ torch.diag(values.clamp(min=1e-4).rsqrt()) @ vectors.T)


def _smallest(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The least side of an image that :class:`ImageEncoder` takes."""
    size = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        # One pixel less is padded; more than one pixel of output needs no padding.
        size = kernel - 1 if size == 1 else kernel + (size - 1) * stride
    return max(size, 1)


def _check_images(space: spaces.Space[Any]) -> tuple[int, int, int]:
    """Channels, height, width; a ``ValueError`` unless the space holds channel-first images."""
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
