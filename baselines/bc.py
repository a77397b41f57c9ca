"""
Behaviour cloning with a multi-layer perceptron, and the heads that turn features into actions.

Sizes are robomimic's (Mandlekar et al. 2021, arXiv 2108.03298; ``robomimic/config/bc_config.py``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from stable_baselines3.common.type_aliases import GymEnv
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.learner import ImitationAlgorithm
from difftori_gym.il.losses import ImitationLoss, action_loss
from difftori_gym.il.networks import ChunkNetwork, ObservationEncoder, TrainingBatch
from difftori_gym.il.policies import ImitationPolicy, aliases_of
from difftori_gym.models import mlp
from difftori_gym.observations import TensorObs

HeadName = Literal["deterministic", "gaussian", "gmm"]
HEADS = ("deterministic", "gaussian", "gmm")
GAUSSIAN_MIN_STD, GMM_MIN_STD = 0.01, 1e-4
ACTING_STD = 1e-4
"""Standard deviation of each mode when acting: robomimic's ``low_noise_eval``."""


@dataclass(frozen=True)
class CloningLoss(ImitationLoss):
    """``action`` is the mean squared error of the likeliest mode's mean."""

    action: Tensor


class ActionHead(nn.Module):
    """A point, or a mixture of ``num_modes`` Gaussians with means in (-1, 1), over chunks of actions ``[H, A]``."""

    def __init__(self, features_dim: int, horizon: int, action_dim: int, kind: HeadName, num_modes: int = 5) -> None:
        super().__init__()
        if kind not in HEADS:
            raise ValueError(f"A head needs to be one of {', '.join(HEADS)}, got {kind!r}.")
        self.kind, self.shape = kind, (horizon, action_dim)
        self.num_modes = num_modes if kind == "gmm" else 1
        self.min_std = GMM_MIN_STD if kind == "gmm" else GAUSSIAN_MIN_STD
        size = horizon * action_dim
        outputs = size if kind == "deterministic" else self.num_modes * (2 * size + 1)
        self.linear = nn.Linear(features_dim, outputs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means ``[N, modes, H, A]``, their standard deviations, and logarithms of the weights ``[N, modes]``."""
        outputs = self.linear(features)
        if self.kind == "deterministic":
            means = torch.tanh(outputs).view(-1, 1, *self.shape)
            return means, torch.zeros_like(means), torch.zeros_like(outputs[:, :1])
        size = self.num_modes * math.prod(self.shape)
        means, raw, logits = outputs.split([size, size, self.num_modes], dim=-1)
        stds = F.softplus(raw).view(-1, self.num_modes, *self.shape) + self.min_std
        return torch.tanh(means).view(-1, self.num_modes, *self.shape), stds, logits.log_softmax(dim=-1)

    def loss(self, features: Tensor, actions: Tensor) -> CloningLoss:
        """Squared error, or negative logarithm of the likelihood, of ``actions`` ``[N, H, A]`` in [-1, 1]."""
        means, stds, log_weights = self(features)
        likeliest = means[torch.arange(len(means)), log_weights.argmax(dim=1)]
        error = action_loss(likeliest, actions)
        if self.kind == "deterministic":
            return CloningLoss(error, error.detach())
        return CloningLoss(mixture_nll(means, stds, log_weights, actions).mean(), error.detach())

    def act(self, features: Tensor, deterministic: bool) -> Tensor:
        """``[B, H, A]`` in [-1, 1]: the mean of the likeliest mode, or near that of one drawn by its weight."""
        means, _, log_weights = self(features)
        rows = torch.arange(len(means), device=means.device)
        if deterministic or self.kind == "deterministic":
            return means[rows, log_weights.argmax(dim=1)]
        chosen = means[rows, torch.multinomial(log_weights.exp(), 1).squeeze(1)]
        return (chosen + ACTING_STD * torch.randn_like(chosen)).clamp(-1.0, 1.0)


def mixture_nll(means: Tensor, stds: Tensor, log_weights: Tensor, actions: Tensor) -> Tensor:
    """
    Negative logarithm ``[N]`` of the likelihood of ``[N, H, A]`` under a mixture of diagonal Gaussians.

    Means and ``stds`` are ``[N, modes, H, A]``, ``log_weights`` ``[N, modes]``.
    """
    scaled = (actions[:, None] - means) / stds
    log_probability = (-0.5 * scaled.square() - stds.log() - 0.5 * math.log(2.0 * math.pi)).flatten(2).sum(dim=2)
    return -torch.logsumexp(log_weights + log_probability, dim=1)


class BCNetwork(ChunkNetwork):
    def __init__(
        self,
        encoder: ObservationEncoder,
        horizon: int,
        action_dim: int,
        *,
        net_arch: Sequence[int] = (1024, 1024),
        head: HeadName = "deterministic",
        num_modes: int = 5,
        activation_fn: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(encoder, horizon, action_dim)
        if not net_arch:
            raise ValueError("BC needs at least one hidden layer in net_arch, got none.")
        self.body = nn.Sequential(mlp(self.condition_dim, net_arch[:-1], net_arch[-1], activation_fn), activation_fn())
        self.head = ActionHead(net_arch[-1], horizon, action_dim, head, num_modes)

    def features(self, observations: TensorObs) -> Tensor:
        """Last hidden layer ``[B, hidden]``."""
        return self.body(self.encoder(observations).flatten(1))

    def loss(self, batch: TrainingBatch) -> CloningLoss:
        return self.head.loss(self.features(batch.observations), batch.actions)

    def chunk(self, observations: TensorObs, noise: Tensor, start: Tensor | None, deterministic: bool) -> Tensor:
        return self.head.act(self.features(observations), deterministic)


class BCPolicy(ImitationPolicy):
    """
    Further arguments are those of :class:`~difftori_gym.il.policies.ImitationPolicy`.

    - ``net_arch``: hidden sizes
    - ``head``: ``"deterministic"``, ``"gaussian"`` or ``"gmm"``
    - ``num_modes``: Gaussians of a ``"gmm"``
    - ``activation_fn``: activation of the hidden layers
    """

    network_class = BCNetwork


class BC(ImitationAlgorithm):
    """
    Behaviour cloning.

    Further arguments are those of :class:`~difftori_gym.il.learner.ImitationAlgorithm`.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` or a subclass of :class:`BCPolicy`
    :param head: ``"deterministic"`` (squared error), ``"gaussian"`` or ``"gmm"`` (likelihood)
    :param num_modes: Gaussians of a ``"gmm"``
    """

    algorithm: ClassVar[str] = "BC"
    policy_settings = (*ImitationAlgorithm.policy_settings, "head", "num_modes")
    policy_aliases = aliases_of(BCPolicy)

    def __init__(
        self,
        policy: str | type[ImitationPolicy],
        env: GymEnv | str | None = None,
        demonstrations: Demonstrations | None = None,
        *,
        head: HeadName = "deterministic",
        num_modes: int = 5,
        **kwargs: Any,
    ) -> None:
        self.head, self.num_modes = head, num_modes
        super().__init__(policy, env, demonstrations, **kwargs)
