"""Problems the solvers are tested on."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from difftori_gym.trajopt import FastObjective, Settings, TrajectoryOptimizer, ascent
from difftori_gym.trajopt.iterates import IterateRecord


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
        # Most solvers do not see a constant added to the objective: the derivative by the last biases is then zero.
        gradients = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradients, strict=True))


def numerical_derivative(function: Callable[[], Tensor], tensor: Tensor, direction: Tensor, epsilon: float) -> Tensor:
    """Central difference of a scalar function along a direction of a tensor it depends on."""
    with torch.no_grad():
        origin = tensor.clone()
        values = []
        for sign in (1.0, -1.0):
            tensor.copy_(origin + sign * epsilon * direction)
            values.append(function().detach())
        tensor.copy_(origin)
        return (values[0] - values[1]) / (2 * epsilon)


def assert_matches_finite_differences(
    problem: LatentProblem,
    gradients: dict[str, Tensor],
    solve: Callable[[], Tensor],
    *,
    tolerance: float = 1e-6,
    epsilon: float = 1e-6,
) -> None:
    """Each of :meth:`LatentProblem.gradients` against the central difference of ``solve`` in a random direction."""
    generator = torch.Generator().manual_seed(5)
    actions = solve().detach()
    weights = torch.randn(actions.shape, generator=generator, dtype=torch.float64)
    leaves = {**problem.captured, "start": problem.start}
    for name, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        numerical = numerical_derivative(lambda: (weights * solve()).sum(), leaves[name], direction, epsilon)
        torch.testing.assert_close(
            (gradient * direction).sum(), numerical, rtol=tolerance, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


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


@pytest.fixture(scope="session")
def finite_differences() -> Callable[..., None]:
    return assert_matches_finite_differences


@pytest.fixture
def frozen_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[LatentProblem, TrajectoryOptimizer], None]:
    """Check a derivative against differences of the accepted steps, with all that the search chose held fixed."""

    def check(problem: LatentProblem, optimizer: TrajectoryOptimizer) -> None:
        seen: list[tuple[list[ascent.Step], Settings, ascent.Rule]] = []
        search = ascent.search

        def spy(
            objective: FastObjective,
            start: Tensor,
            settings: Settings,
            rule: ascent.Rule,
            record: IterateRecord,
        ) -> tuple[Tensor, list[ascent.Step]]:
            found, steps = search(objective, start, settings, rule, record)
            seen.append((steps, settings, rule))
            return found, steps

        with monkeypatch.context() as patch:
            patch.setattr(ascent, "search", spy)
            solution = optimizer(problem.objective, problem.start)
        ((steps, settings, rule),) = seen
        accepted = torch.stack([step.accepted for step in steps])
        assert accepted.any(0).all(), "a sample took no step"
        assert not accepted.all(), "no step was taken back"

        def repeated() -> Tensor:
            with torch.enable_grad():
                return ascent.repeat(problem.start, steps, settings, rule).detach()

        torch.testing.assert_close(repeated(), solution.actions.detach(), rtol=1e-10, atol=1e-12)
        gradients = problem.gradients(solution.actions, of_start=optimizer.backward_mode == "unroll")
        constant = {"reward.2.bias", "value.2.bias"}  # these only add to the objective
        assert all(gradient.abs().max() > 0 for name, gradient in gradients.items() if name not in constant)
        assert_matches_finite_differences(problem, gradients, repeated)

    return check
