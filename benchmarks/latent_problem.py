"""Problems to time solvers on: a latent model of a given size, and DiffTORI's solver as its authors call it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difftori_gym.models import LatentModel, LatentObjective, latent_return, rollout_prior
from difftori_gym.trajopt import TrajectoryOptimizer

LATENT_DIM, DISCOUNT = 50, 0.99
# name -> width of the networks, horizon, action dimension
SIZES = {"small": (256, 3, 2), "paper": (512, 5, 6)}

Solve = Callable[[], Tensor]
"""Plan, and return the actions ``[B, H, A]``: with a graph if that is what is measured."""


@dataclass
class Problem:
    """A latent model with random weights, latent states, and the rollout of the policy prior as the start."""

    model: LatentModel
    z0: Tensor
    start: Tensor

    @property
    def objective(self) -> LatentObjective:
        """The return as DiffTORI's planner maximises it."""
        return LatentObjective(self.model, self.z0, discount=DISCOUNT)

    def objective_by_autograd(self, actions: Tensor) -> Tensor:
        """The same by autograd alone."""
        return latent_return(self.model, self.z0, actions, discount=DISCOUNT)

    def differentiate(self, solve: Solve) -> None:
        """Solve, and take the gradient of a loss on the actions in every parameter."""
        loss = solve().square().mean()
        torch.autograd.grad(loss, list(self.model.parameters()), allow_unused=True)


def make_problem(size: str, batch: int, device: torch.device) -> Problem:
    """
    :param size: of :data:`SIZES`
    :param batch: B
    :param device: where it lies
    :return: the same problem at every call
    """
    width, horizon, action_dim = SIZES[size]
    torch.manual_seed(0)
    arch = (width, width)
    model = LatentModel(LATENT_DIM, action_dim, dynamics_arch=arch, reward_arch=arch, qf_arch=arch, pi_arch=arch)
    for parameter in model.parameters():  # heads start at zero, where there is nothing to optimise
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    z0 = torch.randn(batch, LATENT_DIM)
    model, z0 = model.to(device), z0.to(device)
    return Problem(model, z0, rollout_prior(model, z0, horizon))


def _theseus() -> Any:
    """The package, which the other solvers do without."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Couldn't import skparse.cholmod")
        import theseus
    return theseus


def released_solve(problem: Problem, settings: TrajectoryOptimizer) -> Solve:
    """
    Theseus as DiffTORI's released code calls it: AutoDiffCostFunction, one layer for all calls, the last iterate.

    :param problem: what to solve
    :param settings: iterations, step size, damping and backward mode
    :return: the call; with a graph unless the backward mode is ``"none"``
    """
    theseus = _theseus()
    batch, horizon, action_dim = problem.start.shape
    variable = theseus.Vector(dof=horizon * action_dim, name="plan")
    state = theseus.Vector(dof=LATENT_DIM, name="state")

    def residual(optim_vars: tuple[Any], aux_vars: tuple[Any]) -> Tensor:
        actions = optim_vars[0].tensor.reshape(-1, horizon, action_dim).clamp(-1.0, 1.0)
        return (1000.0 - latent_return(problem.model, aux_vars[0].tensor, actions, discount=DISCOUNT))[:, None]

    nonlinear = theseus.Objective()
    nonlinear.add(theseus.AutoDiffCostFunction([variable], residual, 1, aux_vars=[state], autograd_mode="vmap"))
    solver = theseus.LevenbergMarquardt(
        nonlinear,
        max_iterations=settings.max_iterations,
        step_size=settings.step_size,
        abs_err_tolerance=0.0,
        rel_err_tolerance=0.0,
    )
    layer = theseus.TheseusLayer(solver).to(device=problem.start.device)
    differentiable = settings.backward_mode != "none"
    options = {
        "damping": settings.damping,
        "backward_mode": settings.backward_mode if differentiable else "unroll",
        "backward_num_iterations": settings.backward_num_iterations,
    }

    def solve() -> Tensor:
        with torch.set_grad_enabled(differentiable):
            found, _ = layer.forward({"plan": problem.start.flatten(1), "state": problem.z0}, optimizer_kwargs=options)
        actions: Tensor = found["plan"].reshape(batch, horizon, action_dim)
        return actions

    return solve
