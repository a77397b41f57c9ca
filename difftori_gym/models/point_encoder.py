"""A small PointNet, as a feature extractor of Stable-Baselines3's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class PointNetEncoder(BaseFeaturesExtractor):
    """
    The point-cloud encoder of DP3 (arXiv 2403.03954) with the sizes of DiffTORI's release: every point through
    3-64-128-256 with LayerNorm and ReLU, the maximum over the points, then a linear layer to 64 and LayerNorm.

    The features depend neither on the order of the points nor on how often a point is repeated.

    :param observation_space: point clouds ``[N, 3]``, or ``[N, 6]`` with colours behind the coordinates
    :param features_dim: number of features
    :param hidden_dims: sizes of the layers that every point goes through
    :param use_color: whether colours are read; False reads the coordinates alone
    :raises ValueError: if the space holds no point clouds, or colours are asked for that it does not have
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        features_dim: int = 64,
        *,
        hidden_dims: Sequence[int] = (64, 128, 256),
        use_color: bool = True,
    ) -> None:
        super().__init__(observation_space, features_dim)
        shape = observation_space.shape
        if not isinstance(observation_space, spaces.Box) or shape is None or len(shape) != 2 or shape[1] not in (3, 6):
            raise ValueError(
                f"PointNetEncoder expected point clouds [points, 3] or [points, 6], got {observation_space}: put the "
                "coordinates first and three colour channels, if any, behind them."
            )
        self.in_channels = shape[1] if use_color else 3
        layers: list[nn.Module] = []
        size = self.in_channels
        for hidden in hidden_dims:
            layers += [nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.ReLU()]
            size = hidden
        self.points = nn.Sequential(*layers)
        self.final = nn.Sequential(nn.Linear(size, features_dim), nn.LayerNorm(features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """
        :param observations: point clouds ``[B, N, 3]`` or ``[B, N, 6]``
        :return: features ``[B, features_dim]``
        """
        features: Tensor = self.final(self.points(observations[..., : self.in_channels]).amax(dim=1))
        return features
