"""The learned latent model a plan is made in: encoder, dynamics, reward, value, termination and policy prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models.mlp import EnsembleCritic, mlp


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
        """A preprocessed observation ``[B, ...]``, or a dictionary of such -> latent states ``[B, Z]``."""
        return self.head(self.features_extractor(observation))


class EpisodicModel(nn.Module):
    """
    A latent model that knows whether the episodes it imagines may terminate.

    :param latent_dim: Z
    :param action_dim: A
    """

    episodic_flag: Tensor

    def __init__(self, latent_dim: int, action_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.action_dim = latent_dim, action_dim
        # A float, because Stable-Baselines3 averages whole state dicts; the bool saves a read from the device.
        self.register_buffer("episodic_flag", torch.zeros(1))
        self._episodic = False

    @property
    def episodic(self) -> bool:
        """Whether an episode has ever ended by termination; until then the termination head is not consulted."""
        return self._episodic

    @episodic.setter
    def episodic(self, value: bool) -> None:
        self._episodic = bool(value)
        self.episodic_flag.fill_(float(value))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._episodic = bool(self.episodic_flag.item() > 0.5)


class LatentModel(EpisodicModel):
    """
    TD-MPC's task-oriented latent dynamics model, in its vocabulary: ``next``, ``Q``, ``pi``.

    :param latent_dim: Z
    :param action_dim: A
    :param dynamics_arch: hidden sizes of the latent dynamics d(z, a)
    :param reward_arch: hidden sizes of the reward R(z, a)
    :param qf_arch: hidden sizes of the values Q(z, a)
    :param pi_arch: hidden sizes of the policy prior pi(z)
    :param n_critics: number of values
    :param activation_fn: activation of the hidden layers
    :param layer_norm: whether every hidden layer of the values is normalised, not the first alone
    """

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        *,
        dynamics_arch: Sequence[int] = (256, 256),
        reward_arch: Sequence[int] = (256, 256),
        qf_arch: Sequence[int] = (256, 256),
        pi_arch: Sequence[int] = (256, 256),
        n_critics: int = 2,
        activation_fn: type[nn.Module] = nn.ELU,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(latent_dim, action_dim)
        joint = latent_dim + action_dim
        self.dynamics = mlp(joint, dynamics_arch, latent_dim, activation_fn)
        self.reward = mlp(joint, reward_arch, 1, activation_fn, last_gain=0.0)
        self.termination = mlp(latent_dim, reward_arch, 1, activation_fn, last_gain=0.0)
        self.critic = EnsembleCritic(n_critics, latent_dim, action_dim, qf_arch, activation_fn, layer_norm)
        self.actor = mlp(latent_dim, pi_arch, action_dim, activation_fn)

    def next(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """
        One imagined step: latent states ``[B, Z]``, actions ``[B, A]`` in [-1, 1] -> next states ``[B, Z]``, rewards
        ``[B]``.
        """
        x = torch.cat([z, action], dim=-1)
        return self.dynamics(x), self.reward(x).squeeze(-1)

    def Q(self, z: Tensor, action: Tensor) -> Tensor:
        """Latent states ``[B, Z]`` and actions ``[B, A]`` in [-1, 1] -> values ``[n_critics, B]``."""
        return self.critic(z, action)

    def pi(self, z: Tensor) -> Tensor:
        """Latent states ``[B, Z]`` -> actions of the policy prior ``[B, A]`` in (-1, 1)."""
        return torch.tanh(self.actor(z))

    def survival(self, z: Tensor) -> Tensor:
        """Probability ``[B]`` that the episode did not terminate on entering latent states ``[B, Z]``."""
        return torch.sigmoid(-self.termination(z).squeeze(-1))


def latent_return(model: LatentModel, z0: Tensor, actions: Tensor, *, discount: float) -> Tensor:
    """
    Discounted return of open-loop action sequences, imagined in latent space (DiffTORI, Eq. 4).

    sum_{t<H} discount^t c_t R(z_t, a_t) + discount^H c_H min_k Q_k(z_H, pi(z_H)), with z_{t+1} = d(z_t, a_t) and c_t
    the probability of not having terminated before step t (1 as long as no episode has terminated in the data). The
    terminal action is the prior's, as in the released code; the paper writes a free one.

    :param model: latent dynamics, reward, value and policy prior
    :param z0: latent states ``[B, Z]``
    :param actions: action sequences ``[B, H, A]`` in [-1, 1]
    :param discount: per-step discount, in (0, 1]
    :return: returns ``[B]``, differentiable in ``z0``, ``actions`` and the model's parameters
    """
    z = z0
    total: Tensor | float = 0.0
    weight: Tensor | float = 1.0
    for action in actions.unbind(dim=1):  # [B, A]
        z, reward = model.next(z, action)
        total = total + weight * reward
        weight = weight * discount * model.survival(z) if model.episodic else weight * discount
    return total + weight * model.Q(z, model.pi(z)).amin(dim=0)


@torch.no_grad()
def rollout_prior(model: LatentModel, z0: Tensor, horizon: int, noise: Tensor | None = None) -> Tensor:
    """
    Action sequence of the policy prior along its own imagined rollout.

    :param model: latent dynamics and policy prior
    :param z0: latent states ``[B, Z]``
    :param horizon: H, at least 1
    :param noise: added to the actions before they are clipped to [-1, 1], ``[B, H, A]``
    :return: actions ``[B, H, A]`` in [-1, 1], without a graph
    """
    z, actions = z0, []
    for t in range(horizon):
        action = model.pi(z)
        if noise is not None:
            action = (action + noise[:, t]).clamp(-1.0, 1.0)
        actions.append(action)
        if t + 1 < horizon:
            z = model.dynamics(torch.cat([z, action], dim=-1))
    return torch.stack(actions, dim=1)


def termination_loss(model: LatentModel, z: Tensor, terminated: Tensor) -> Tensor:
    """
    Binary cross-entropy of the termination head ``[N]``.

    :param z: latent states ``[N, Z]`` just entered
    :param terminated: 1 where the episode ended there by termination, else 0, ``[N]``
    """
    logits = model.termination(z).squeeze(-1)
    return F.binary_cross_entropy_with_logits(logits, terminated, reduction="none")
