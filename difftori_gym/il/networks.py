"""What every imitation policy is made of: an observation encoder, and a network that proposes chunks of actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from difftori_gym.il.losses import ImitationLoss
from difftori_gym.observations import TensorObs, map_obs


@dataclass(frozen=True)
class TrainingBatch:
    """
    Windows of demonstrations as a network sees them.

    :param observations: raw, ``[B, n_obs_steps, ...]`` or a dictionary of such
    :param actions: from the time of the last observation on ``[B, H, A]``, in [-1, 1]
    :param base_actions: what the base policy would do ``[B, H, A]``, None without one
    :param all_actions: the same as ``actions`` for each of the observations ``[B, n_obs_steps, H, A]``, for networks
        that are trained on all of them, else None
    """

    observations: TensorObs
    actions: Tensor
    base_actions: Tensor | None = None
    all_actions: Tensor | None = None


class ObservationEncoder(nn.Module):
    """The last ``n_obs_steps`` observations, normalised and turned into one vector each."""

    def __init__(self, normalizer: nn.Module, features_extractor: BaseFeaturesExtractor, n_obs_steps: int) -> None:
        super().__init__()
        self.normalizer, self.features_extractor, self.n_obs_steps = normalizer, features_extractor, n_obs_steps
        self.features_dim = int(features_extractor.features_dim)

    def forward(self, observations: TensorObs) -> Tensor:
        """``[B, at least n_obs_steps, ...]``, or a dictionary of such -> ``[B, n_obs_steps, features_dim]``."""
        frames = map_obs(self._frames, observations)
        features: Tensor = self.features_extractor(self.normalizer(frames))
        return features.unflatten(0, (-1, self.n_obs_steps))

    def _frames(self, windows: Tensor) -> Tensor:
        frames = windows[:, -self.n_obs_steps :].flatten(0, 1)  # [B * n_obs_steps, ...]
        frames = frames if frames.ndim > 1 else frames[:, None]  # of shape (): networks read vectors
        return frames.float() if frames.is_floating_point() else frames


class ChunkNetwork(nn.Module, ABC):
    """Proposes the next ``horizon`` actions. A method is one subclass: how it is trained, and how it answers."""

    #: Numbers that an answer is a function of, besides the observations; they are drawn by the policy.
    noise_dim: int = 0
    #: Whether ``TrainingBatch.all_actions`` is wanted.
    trains_on_all: bool = False

    def __init__(self, encoder: ObservationEncoder, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.encoder, self.horizon, self.action_dim = encoder, horizon, action_dim

    @property
    def condition_dim(self) -> int:
        """Size of the features of all observations together."""
        return self.encoder.n_obs_steps * self.encoder.features_dim

    def fixed_noise(self) -> Tensor:
        """The noise ``[noise_dim]`` of deterministic answers, the same for every sample."""
        return torch.randn(self.noise_dim, generator=torch.Generator().manual_seed(0))

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> ImitationLoss:
        """The loss of a batch of windows, differentiable in the parameters."""

    @abstractmethod
    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        """
        Called without a graph, in evaluation mode. An answer must not depend on the other samples of the batch.

        :param observations: raw, ``[B, n_obs_steps, ...]`` or a dictionary of such
        :param noise: ``[B, noise_dim]``, standard normal
        :param start: actions of the base policy ``[B, H, A]``, None without one
        :param deterministic: whether further random draws must be the same for every call and sample
        :return: actions ``[B, H, A]`` in [-1, 1]
        """
