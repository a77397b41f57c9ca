"""From observations to latent states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from difftori_gym.models.mlp import mlp


class LatentEncoder(nn.Module):
    """
    h of the paper: a feature extractor of Stable-Baselines3's kind, then an MLP to the latent state.

    Pixels, point clouds and dictionaries are a matter of the extractor alone.

    :param features_extractor: preprocessed observation -> ``[B, features_dim]``; has ``features_dim``
    :param hidden_dims: hidden sizes of the MLP; the paper uses one layer of 256
    :param latent_dim: Z
    :param activation_fn: activation of the MLP
    """

    def __init__(
        self,
        features_extractor: nn.Module,
        hidden_dims: Sequence[int],
        latent_dim: int,
        activation_fn: type[nn.Module] = nn.ELU,
    ) -> None:
        super().__init__()
        self.features_extractor = features_extractor
        features_dim: Any = features_extractor.features_dim
        self.head = mlp(int(features_dim), hidden_dims, latent_dim, activation_fn)

    def forward(self, observation: Tensor | dict[str, Tensor]) -> Tensor:
        """
        :param observation: preprocessed observation, ``[B, ...]`` or a dictionary of such
        :return: latent states ``[B, Z]``
        """
        return self.head(self.features_extractor(observation))
