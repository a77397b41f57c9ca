"""Multi-layer perceptrons, and the ensemble of them that serves as a value function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def orthogonal_init(module: nn.Module) -> None:
    """
    Orthogonal weights and zero biases for linear layers and for convolutions, which ReLU is taken to follow: TD-MPC's
    start.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu") if isinstance(module, nn.Conv2d) else 1.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def mlp(
    input_dim: int,
    hidden_dims: Sequence[int],
    output_dim: int,
    activation_fn: type[nn.Module] = nn.ELU,
    last_gain: float = 1.0,
) -> nn.Sequential:
    """
    ``[..., input_dim]`` -> ``[..., output_dim]``, orthogonally initialised, the weights of the last layer times
    ``last_gain``. No hidden layers mean one linear layer.
    """
    layers: list[nn.Module] = []
    for size in hidden_dims:
        layers += [nn.Linear(input_dim, size), activation_fn()]
        input_dim = size
    last = nn.Linear(input_dim, output_dim)
    network = nn.Sequential(*layers, last)
    network.apply(orthogonal_init)
    with torch.no_grad():
        last.weight.mul_(last_gain)
    if last_gain == 0.0:
        nn.init.zeros_(last.weight)  # none of them negative
    return network


class EnsembleCritic(nn.Module):
    """
    ``E`` state-action value functions of TD-MPC's shape: linear, LayerNorm, tanh, then plain hidden layers.

    The last layer starts at zero, so that every value does. The members are separate networks rather than one batched
    product: on a CPU that is as fast, and it stays fast under ``torch.vmap``, which copies batched weights.

    :param num_members: E
    :param state_dim: size of the state (a latent or features of a raw observation)
    :param action_dim: size of the action
    :param hidden_dims: sizes of the hidden layers
    :param activation_fn: activation of every hidden layer but the first
    :param layer_norm: whether LayerNorm stands before every activation (SimbaV2, BRO), not the first alone
    """

    def __init__(
        self,
        num_members: int,
        state_dim: int,
        action_dim: int,
        hidden_dims: Sequence[int],
        activation_fn: type[nn.Module] = nn.ELU,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        members = [mlp(state_dim + action_dim, hidden_dims, 1, activation_fn, 0.0) for _ in range(num_members)]
        for member in members:
            if hidden_dims:
                member[1] = nn.Sequential(nn.LayerNorm(hidden_dims[0]), nn.Tanh())
            for index, size in enumerate(hidden_dims[1:] if layer_norm else (), start=1):
                member[2 * index + 1] = nn.Sequential(nn.LayerNorm(size), activation_fn())
        self.members = nn.ModuleList(members)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        """States ``[B, state_dim]`` and actions ``[B, action_dim]`` in [-1, 1] -> values ``[E, B]``."""
        x = torch.cat([state, action], dim=-1)
        return torch.cat([member(x) for member in self.members], dim=-1).movedim(-1, 0)
