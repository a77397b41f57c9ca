"""A small PointNet, as a feature extractor of Stable-Baselines3's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

CPU_POINTS = 4096
"""Points that go through the layers at a time on a CPU."""


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
            layers += [nn.Linear(size, hidden), nn.LayerNorm(hidden), nn.ReLU(inplace=True)]
            size = hidden
        self.points = nn.Sequential(*layers)
        self.final = nn.Sequential(nn.Linear(size, features_dim), nn.LayerNorm(features_dim))

    def forward(self, observations: Tensor) -> Tensor:
        """Point clouds ``[B, N, 3]`` or ``[B, N, 6]`` -> features ``[B, features_dim]``."""
        clouds = observations[..., : self.in_channels]
        if torch.is_grad_enabled():
            return self.final(self._greatest(clouds))
        return self.final(torch.cat([self.points(part).amax(dim=1) for part in _parts(clouds)]))

    def _greatest(self, clouds: Tensor) -> Tensor:
        """
        The maximum over the points ``[B, N, C]`` -> ``[B, n]`` with a graph of only those points that it is taken from.

        No other point has a gradient. Of 512 points they are about a sixth for 128 numbers, three tenths for 256. Their
        number has to be known, so another device than a CPU is waited for once.
        """
        with torch.no_grad():
            winners = torch.cat([self.points(part).max(dim=1).indices for part in _parts(clouds)])  # [B, n]
            rows = winners + clouds.shape[1] * torch.arange(len(clouds), device=clouds.device)[:, None]
            rows, place = torch.unique(rows, return_inverse=True)  # [U], [B, n]
        numbers: Tensor = self.points(clouds.flatten(0, 1).index_select(0, rows))  # [U, n]
        return numbers.gather(0, place)


def _parts(clouds: Tensor) -> tuple[Tensor, ...]:
    """Pieces of a batch whose layers fit into the cache of a CPU; elsewhere one."""
    few = max(1, CPU_POINTS // max(1, clouds.shape[1])) if clouds.device.type == "cpu" else len(clouds)
    return clouds.split(max(1, few))
