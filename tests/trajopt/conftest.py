"""Problems the solvers are tested on."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


class LatentNetworks(nn.Module):
    """Dynamics, reward and value networks, smooth in everything, so that finite differences mean something."""

    def __init__(self, latent_dim: int, action_dim: int, width: int) -> None:
        super().__init__()
        joint = latent_dim + action_dim
        self.dynamics = nn.Sequential(nn.Linear(joint, width), nn.Tanh(), nn.Linear(width, latent_dim))
        self.reward = nn.Sequential(nn.Linear(joint, width), nn.Tanh(), nn.Linear(width, 1))
        self.value = nn.Sequential(nn.Linear(latent_dim, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        total = torch.zeros_like(z[:, 0])
        for t, action in enumerate(actions.unbind(1)):
            x = torch.cat([z, action], dim=-1)
            total = total + 0.9**t * self.reward(x).squeeze(-1)
            z = self.dynamics(x)
        return total + 0.9 ** actions.shape[1] * self.value(z).squeeze(-1)


@dataclass
class LatentProblem:
    """A planning problem in a random latent model: what to maximise, from where, and what a gradient must reach."""

    networks: LatentNetworks
    z0: Tensor
    start: Tensor

    def objective(self, actions: Tensor) -> Tensor:
        return self.networks(self.z0, actions)

    @property
    def captured(self) -> dict[str, Tensor]:
        return {"z0": self.z0, **dict(self.networks.named_parameters())}

    def rows(self, index: Tensor | slice) -> "LatentProblem":
        return LatentProblem(self.networks, self.z0[index], self.start[index])

    def gradients(self, solution_actions: Tensor, *, of_start: bool = False) -> dict[str, Tensor]:
        """Gradient of a fixed random linear loss on the actions, by every captured tensor."""
        generator = torch.Generator().manual_seed(5)
        weights = torch.randn(solution_actions.shape, generator=generator, dtype=torch.float64)
        leaves = {**self.captured, **({"start": self.start} if of_start else {})}
        loss = (weights.to(solution_actions) * solution_actions).sum()
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def make_problem(
    batch: int = 3,
    horizon: int = 2,
    action_dim: int = 2,
    latent_dim: int = 4,
    width: int = 8,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> LatentProblem:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        networks = LatentNetworks(latent_dim, action_dim, width).to(dtype)
        z0 = torch.randn(batch, latent_dim, dtype=dtype).requires_grad_()
        start = (1.8 * torch.rand(batch, horizon, action_dim, dtype=dtype) - 0.9).requires_grad_()
    return LatentProblem(networks, z0, start)


@pytest.fixture(scope="session")
def latent_problem() -> Callable[..., LatentProblem]:
    return make_problem
