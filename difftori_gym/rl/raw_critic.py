"""Values of observations as they are, which judge the actions of a plan in the policy-gradient loss."""

from __future__ import annotations

from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn

from difftori_gym.models import EnsembleCritic


class RawCritic(nn.Module):
    """Q-tilde of the paper: values on the raw observation, with a feature extractor of their own."""

    def __init__(
        self,
        features_extractor: BaseFeaturesExtractor,
        action_dim: int,
        arch: list[int],
        n_critics: int,
        activation_fn: type[nn.Module],
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        self.features_extractor = features_extractor
        size = features_extractor.features_dim
        self.critic = EnsembleCritic(n_critics, size, action_dim, arch, activation_fn, layer_norm)

    def forward(self, observation: PyTorchObs, action: Tensor) -> Tensor:
        """:return: values ``[n_critics, B]`` of a preprocessed observation and actions ``[B, A]`` in [-1, 1]"""
        return self.critic(self.features_extractor(observation), action)
