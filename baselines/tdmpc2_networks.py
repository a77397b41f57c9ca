"""
The networks of TD-MPC2 (Hansen, Su and Wang 2024, arXiv 2310.16828, section 3 and appendix H, and its released code).

Every hidden layer is linear, LayerNorm, Mish. Latent states are rows of small probability vectors. Reward and values
are categorical over bins that are evenly spaced in the symmetric logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models import EpisodicModel

LOG_STD_BOUNDS = (-10.0, 2.0)  # of the policy prior
MAX_SYMLOG = 10.0  # the outermost bins stand for about plus and minus 22,000


class SimNorm(nn.Module):
    """Softmax over each group of ``dim`` numbers of a row, ``[..., n * dim]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        # Over the first axis of a transposed copy: on a CPU, softmax over so short a last one is six times slower.
        groups = x.reshape(-1, self.dim).t().contiguous()
        return groups.softmax(dim=0).t().reshape(x.shape)


class Mish(nn.Mish):
    """x tanh(log(1 + e^x)), without a graph on a CPU by one exponential, in less than half the time."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.is_grad_enabled():
            return super().forward(input)
        e = input.clamp(max=20.0).exp_()  # beyond, the factor is 1
        n = e.addcmul(e, e, value=0.5).mul_(2.0)  # (1 + e^x)^2 - 1
        return n.div_(n + 2.0).mul_(input)


def normed_linear(input_dim: int, output_dim: int, activation: nn.Module, dropout: float = 0.0) -> nn.Sequential:
    """``[..., input_dim]`` -> ``[..., output_dim]``: linear, dropout, LayerNorm, activation."""
    between = [nn.Dropout(dropout)] if dropout > 0 else []
    return nn.Sequential(nn.Linear(input_dim, output_dim), *between, nn.LayerNorm(output_dim), activation)


def normed_mlp(
    input_dim: int,
    hidden_dims: Sequence[int],
    output_dim: int,
    *,
    activation_fn: type[nn.Module] = nn.Mish,
    last_activation: nn.Module | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """
    ``[..., input_dim]`` -> ``[..., output_dim]``, initialised as published: normal weights of deviation 0.02, no bias.

    :param last_activation: if any, the last layer is normalised, too
    :param dropout: of the first hidden layer
    """
    layers: list[nn.Module] = []
    for index, size in enumerate(hidden_dims):
        activation = Mish() if activation_fn is nn.Mish else activation_fn()
        layers.append(normed_linear(input_dim, size, activation, dropout if index == 0 else 0.0))
        input_dim = size
    if last_activation is None:
        layers.append(nn.Linear(input_dim, output_dim))
    else:
        layers.append(normed_linear(input_dim, output_dim, last_activation))
    return nn.Sequential(*layers).apply(_initialise)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


class SymlogBins(nn.Module):
    """
    Numbers as distributions over bins that are evenly spaced in the symmetric logarithm (DreamerV3, arXiv 2301.04104).

    :param num_bins: K, at least 2
    """

    centres: Tensor

    def __init__(self, num_bins: int) -> None:
        super().__init__()
        self.num_bins = num_bins
        self.register_buffer("centres", torch.linspace(-MAX_SYMLOG, MAX_SYMLOG, num_bins), persistent=False)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits ``[..., K]`` -> numbers ``[...]``."""
        mean = logits.softmax(dim=-1) @ self.centres
        return mean.sign() * mean.abs().expm1()

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """
        Between logits ``[..., N, K]`` and the two bins beside each target ``[N]``, in proportion to their nearness.

        :return: ``[..., N]``; numbers beyond the outermost bins count as these
        """
        symlog = target.sign() * target.abs().log1p()
        position = (symlog.clamp(-MAX_SYMLOG, MAX_SYMLOG) + MAX_SYMLOG) * ((self.num_bins - 1) / (2.0 * MAX_SYMLOG))
        lower = position.nan_to_num().floor().clamp(max=self.num_bins - 2)
        upper_share = position - lower  # nan for a target that is
        shares = torch.stack([1.0 - upper_share, upper_share], dim=-1)  # [N, 2]
        index = torch.stack([lower, lower + 1.0], dim=-1).long()
        beside = logits.gather(-1, index.expand(*logits.shape[:-1], 2))
        return logits.logsumexp(dim=-1) - (shares * beside).sum(dim=-1)


class TwoHotCritic(nn.Module):
    """
    ``E`` state-action values in bins, whose last layers start at zero, so that every value does.

    :param num_members: E
    :param latent_dim: Z
    :param action_dim: A
    :param hidden_dims: sizes of the hidden layers
    :param num_bins: K
    :param activation_fn: activation of the hidden layers
    :param dropout: of the first hidden layer
    """

    def __init__(
        self,
        num_members: int,
        latent_dim: int,
        action_dim: int,
        hidden_dims: Sequence[int],
        num_bins: int,
        activation_fn: type[nn.Module],
        dropout: float,
    ) -> None:
        super().__init__()
        # Networks of their own, as in EnsembleCritic: each is initialised, and two of them can be asked alone.
        self.members = nn.ModuleList(
            normed_mlp(latent_dim + action_dim, hidden_dims, num_bins, activation_fn=activation_fn, dropout=dropout)
            for _ in range(num_members)
        )
        for member in self.members:
            _start_at_zero(member)

    def forward(self, z: Tensor, action: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """
        :param z: latent states ``[B, Z]``
        :param action: ``[B, A]`` in [-1, 1]
        :param members: those that are asked, None for all
        :return: logits ``[E, B, K]``
        """
        x = torch.cat([z, action], dim=-1)
        asked = self.members if members is None else [self.members[index] for index in members]
        return torch.stack([member(x) for member in asked])


def _start_at_zero(network: nn.Module) -> None:
    *_, last = network.children()
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)


@dataclass(frozen=True)
class PriorSample:
    """
    :param action: ``[B, A]`` in [-1, 1]
    :param entropy: minus the logarithm of its density before it was squashed ``[B]``
    """

    action: Tensor
    entropy: Tensor


class TDMPC2Model(EpisodicModel):
    """
    Latent dynamics, reward, values, termination and a Gaussian policy prior that is squashed into the box.

    :param latent_dim: Z, a multiple of ``simnorm_dim``
    :param action_dim: A
    :param dynamics_arch: hidden sizes of the dynamics d(z, a); likewise of reward and termination, values and prior
    :param n_critics: number of values
    :param activation_fn: activation of the hidden layers
    :param dropout: of the first hidden layer of the values
    :param simnorm_dim: numbers that are normalised together in a latent state
    :param num_bins: of reward and values
    """

    def __init__(
        self,
        latent_dim: int,
        action_dim: int,
        *,
        dynamics_arch: Sequence[int],
        reward_arch: Sequence[int],
        qf_arch: Sequence[int],
        pi_arch: Sequence[int],
        n_critics: int,
        activation_fn: type[nn.Module],
        dropout: float,
        simnorm_dim: int,
        num_bins: int,
    ) -> None:
        super().__init__(latent_dim, action_dim)
        joint: int = latent_dim + action_dim
        kind: dict[str, Any] = dict(activation_fn=activation_fn)
        self.dynamics = normed_mlp(joint, dynamics_arch, latent_dim, last_activation=SimNorm(simnorm_dim), **kind)
        self.reward = normed_mlp(joint, reward_arch, num_bins, **kind)
        self.termination = normed_mlp(latent_dim, reward_arch, 1, **kind)
        self.actor = normed_mlp(latent_dim, pi_arch, 2 * action_dim, **kind)
        self.critic = TwoHotCritic(n_critics, latent_dim, action_dim, qf_arch, num_bins, activation_fn, dropout)
        self.bins = SymlogBins(num_bins)
        _start_at_zero(self.reward)

    def next(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """
        One imagined step: latent states ``[B, Z]``, actions ``[B, A]`` in [-1, 1] -> next states ``[B, Z]``, rewards
        ``[B]``.
        """
        x = torch.cat([z, action], dim=-1)
        return self.dynamics(x), self.bins.decode(self.reward(x))

    def Q(self, z: Tensor, action: Tensor, members: Sequence[int] | None = None) -> Tensor:
        """Values ``[n_critics, B]``, or those of some members, of latent states ``[B, Z]`` and actions ``[B, A]``."""
        return self.bins.decode(self.critic(z, action, members))

    def pi(self, z: Tensor) -> Tensor:
        """Latent states ``[B, Z]`` -> mean actions of the policy prior ``[B, A]`` in (-1, 1)."""
        return torch.tanh(self.actor(z)[..., : self.action_dim])

    def sample(self, z: Tensor, noise: Tensor) -> PriorSample:
        """Actions of the policy prior in latent states ``[B, Z]``, for standard normal noise ``[B, A]``."""
        mean, x = self.actor(z).chunk(2, dim=-1)
        low, high = LOG_STD_BOUNDS
        log_std = low + 0.5 * (high - low) * (torch.tanh(x) + 1.0)
        entropy = (0.5 * noise.square() + log_std + 0.5 * math.log(2.0 * math.pi)).sum(dim=-1)
        return PriorSample(torch.tanh(mean + log_std.exp() * noise), entropy)

    def survival(self, z: Tensor) -> Tensor:
        """1 where the episode is taken not to have terminated on entering latent states ``[B, Z]``, else 0, ``[B]``."""
        return (self.termination(z).squeeze(-1) <= 0.0).to(z.dtype)
