"""Scales between the environment's units and [-1, 1], saved inside the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.episode import Episode
from difftori_gym.observations import TensorObs, entries

CloudScaling = Literal["axes", "none"]
CLOUD_SCALINGS: tuple[str, ...] = get_args(CloudScaling)
MIN_RANGE = 1e-4  # a narrower dimension counts as constant, as in Diffusion Policy


class MinMaxNormalizer(nn.Module):
    """
    Carries the range seen in the training set to [-1, 1], per entry of ``shape``, the trailing axes or fewer of them.

    An entry that is constant there is only shifted to 0, not stretched (Diffusion Policy,
    ``diffusion_policy/model/common/normalizer.py``).
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("offset", torch.zeros(shape))

    def fit(self, low: np.ndarray, high: np.ndarray) -> None:
        """Take smallest and largest values, each ``[*shape]``."""
        low, high = low.astype(np.float64), high.astype(np.float64)
        constant = high - low < MIN_RANGE
        scale = np.where(constant, 1.0, 2.0 / np.where(constant, 1.0, high - low))
        self.scale.copy_(torch.as_tensor(scale))
        self.offset.copy_(torch.as_tensor(-scale * (low + high) / 2))

    def forward(self, values: Tensor) -> Tensor:
        """``[..., *shape]`` -> the same, scaled, float32."""
        return values.float() * self.scale + self.offset


class ImageNormalizer(nn.Module):
    """Carries images of bytes to [0, 1], float32."""

    def forward(self, values: Tensor) -> Tensor:
        return values.float() / 255.0


class ObservationNormalizer(nn.Module):
    """
    Normalises observations by their kind, which their space tells.

    - images (``uint8`` with at least three axes): divided by 255
    - point clouds (floats with two axes, ``[points, channels]``): the range seen to [-1, 1], per channel, as in DP3;
      or left as they are
    - all else: the range seen to [-1, 1], per entry

    :param space: a ``Box``, or a ``Dict`` of such
    :param clouds: ``axes`` scales each channel of a cloud, ``none`` leaves clouds as they are
    :raises ValueError: for another choice
    """

    def __init__(self, space: spaces.Space, *, clouds: CloudScaling = "axes") -> None:
        super().__init__()
        if clouds not in CLOUD_SCALINGS:
            raise ValueError(f"Unknown clouds {clouds!r}. Choices: {', '.join(CLOUD_SCALINGS)}.")
        self.entry: nn.Module | None = None
        # A module's name must not hold a dot, a key may: so entries are numbered.
        self.keys: tuple[str, ...] = tuple(space.spaces) if isinstance(space, spaces.Dict) else ()
        if self.keys:
            self.entries = nn.ModuleList([_normalizer_of(entry, clouds) for entry in entries(space).values()])
        else:
            self.entry = _normalizer_of(space, clouds)

    def fit(self, demonstrations: Demonstrations) -> None:
        """Take the ranges of the training set. The closing observations are left out: nothing is done there."""
        if self.entry is not None:
            _fit(self.entry, demonstrations.episodes, None)
        else:
            for key, entry in zip(self.keys, self.entries, strict=True):
                _fit(entry, demonstrations.episodes, key)

    def forward(self, observations: TensorObs) -> TensorObs:
        """Observations with any leading axes -> the same, normalised."""
        if self.entry is not None:
            assert isinstance(observations, Tensor)
            return self.entry(observations)
        found = entries(observations)
        return {key: entry(found[key]) for key, entry in zip(self.keys, self.entries, strict=True)}


def _normalizer_of(space: spaces.Space, clouds: CloudScaling) -> nn.Module:
    assert isinstance(space, spaces.Box)
    if space.dtype == np.uint8 and len(space.shape) >= 3:
        return ImageNormalizer()
    if len(space.shape) == 2:
        return nn.Identity() if clouds == "none" else MinMaxNormalizer(space.shape[-1:])
    return MinMaxNormalizer(space.shape)


def _fit(normalizer: nn.Module, episodes: Sequence[Episode], key: str | None) -> None:
    if not isinstance(normalizer, MinMaxNormalizer):
        return
    shape = tuple(normalizer.scale.shape)
    lows, highs = [], []
    for episode in episodes:
        value = entries(episode.observations)[key]
        flat = np.asarray(value[:-1]).reshape(-1, *shape)
        lows.append(flat.min(axis=0))
        highs.append(flat.max(axis=0))
    normalizer.fit(np.min(lows, axis=0), np.max(highs, axis=0))
