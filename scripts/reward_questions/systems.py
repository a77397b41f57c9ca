"""Pendulum and cart-pole of ``examples/known_dynamics.py``, with a mass to change, and an expert that plans on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from difftori_gym.trajopt import TrajectoryOptimizer

sys.path.append(str(Path(__file__).resolve().parents[2] / "examples"))
from known_dynamics_cartpole import FIRST_GUESS, SPREAD
from known_dynamics_learning import Demonstrations, LearningSettings, Model, demonstrate, imitate, plan
from known_dynamics_pendulum import initial_states
from known_dynamics_systems import CartPole, CartPoleCost, Dynamics, Pendulum, PlannedCost, StageCost, pendulum_cost

__all__ = ["Demonstrations", "Dynamics", "Model", "PlannedCost", "StageCost"]

HORIZON = 12
"""Steps of a plan, the expert's and everybody's."""
KEEP_EVERY = 4
"""Of a drive, every so many states are demonstrated."""
CONTINUE = TrajectoryOptimizer(solver="newton", max_iterations=4, backward_mode="none")
"""From the rest of the last plan."""

Planner = Callable[[Tensor, Tensor | None], Tensor]
"""States ``[B, S]`` and the rest of the last plan ``[B, H, 1]``, None at the beginning -> plans ``[B, H, 1]``."""


class PendulumCost:
    """
    The pendulum's cost, but for a constant: 1 - cos(theta) + w0 dtheta^2 + w1 a^2.

    :param weights: in units of that of the angle, tensor ``[2]``
    """

    TRUE = (0.05, 0.002)

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """States ``[B, 2]``, actions ``[B, 1]`` -> costs ``[B]``."""
        theta, dtheta = state.unbind(dim=1)
        return 1.0 - theta.cos() + self._weights[0] * dtheta.square() + self._weights[1] * action[:, 0].square()


@dataclass(frozen=True)
class System:
    """
    :param name: for tables
    :param mass: which one is changed
    :param dynamics: from the factor on that mass
    :param cost: true cost of a step
    :param starts: from a number and a seed, states ``[N, S]``
    :param features: what a learner sees of states ``[N, S]``
    :param weighted: cost of a step from its weights, for whoever knows its form
    :param true_weights: with which it is the true one, up to a constant and a factor
    :param guess: weights that identification begins with
    """

    name: str
    mass: str
    dynamics: Callable[[float], Dynamics]
    cost: StageCost
    starts: Callable[[int, int], Tensor]
    features: Callable[[Tensor], Tensor]
    weighted: Callable[[Tensor], StageCost]
    true_weights: tuple[float, ...]
    guess: tuple[float, ...]


def _pendulum(factor: float) -> Dynamics:
    pull, inertia = Pendulum.UNDAMPED
    return Pendulum(torch.tensor([pull, inertia * factor], dtype=torch.float64))


def _cart_pole(factor: float) -> Dynamics:
    cart, *pole = CartPole.TRUE
    return CartPole(torch.tensor([cart * factor, *pole], dtype=torch.float64))


def _cart_pole_starts(count: int, seed: int) -> Tensor:
    drawn = torch.rand(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return (2.0 * drawn - 1.0) * torch.tensor(SPREAD, dtype=torch.float64)


def _around(state: Tensor, angle: int) -> Tensor:
    """Sine and cosine in the place of an angle."""
    turned = state[:, angle : angle + 1]
    return torch.cat([state[:, :angle], turned.cos(), turned.sin(), state[:, angle + 1 :]], dim=1)


SYSTEMS = {
    "pendulum": System(
        "pendulum",
        "its mass",
        _pendulum,
        pendulum_cost,
        initial_states,
        lambda state: _around(state, 0),
        PendulumCost,
        PendulumCost.TRUE,
        (0.2, 0.01),
    ),
    "cart-pole": System(
        "cart-pole",
        "the cart's",
        _cart_pole,
        CartPoleCost(torch.tensor(CartPoleCost.TRUE, dtype=torch.float64)),
        _cart_pole_starts,
        lambda state: _around(state, 1),
        CartPoleCost,
        CartPoleCost.TRUE,
        FIRST_GUESS["cost"],
    ),
}


def planner_of(dynamics: Dynamics, cost: StageCost) -> Planner:
    """:return: who plans the least cost: at first from zero and constant pushes, then from the rest of the last plan"""

    def planned(state: Tensor, rest: Tensor | None) -> Tensor:
        if rest is None:
            return plan(dynamics, cost, state, HORIZON)
        return CONTINUE(PlannedCost(dynamics, cost, state), rest).best_actions

    return planned


@torch.no_grad()
def drive(dynamics: Dynamics, planner: Planner, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """
    Carry out the first action of a plan, and plan anew.

    :param dynamics: of the true system
    :param planner: who drives
    :param start: states ``[B, S]``
    :param steps: T
    :return: states ``[B, T + 1, S]`` and actions ``[B, T, 1]``
    """
    states, actions = [start], []
    rest: Tensor | None = None
    for _ in range(steps):
        planned = planner(states[-1], rest)
        actions.append(planned[:, 0])
        states.append(dynamics(states[-1], planned[:, 0]))
        rest = torch.cat([planned[:, 1:], torch.zeros_like(planned[:, :1])], dim=1)
    return torch.stack(states, dim=1), torch.stack(actions, dim=1)


def driven_cost(cost: StageCost, states: Tensor, actions: Tensor) -> Tensor:
    """States ``[B, T + 1, S]``, actions ``[B, T, 1]`` -> sums of costs ``[B]``."""
    return cost(states[:, :-1].flatten(0, 1), actions.flatten(0, 1)).view(actions.shape[:2]).sum(dim=1)


def demonstrations_of(system: System, starts: int, steps: int, seed: int) -> Demonstrations:
    """
    The expert's plans from states that it comes through.

    :param starts: drives
    :param steps: of each
    :param seed: of the starts
    :return: one plan of ``HORIZON`` steps for every fourth state
    """
    dynamics = system.dynamics(1.0)
    states, _ = drive(dynamics, planner_of(dynamics, system.cost), system.starts(starts, seed), steps)
    with torch.no_grad():
        return demonstrate(dynamics, system.cost, states[:, :-1:KEEP_EVERY].flatten(0, 1), HORIZON)


def learn_through_plans(
    model: Model, parameters: list[Tensor], demonstrations: Demonstrations, steps: int, seed: int
) -> list[float]:
    """:return: imitation loss at each step of Adam on ``parameters``, the derivative through the optimiser implicit"""
    settings = LearningSettings(steps, 1e-2, batch_size=50)
    return imitate(model, parameters, demonstrations, settings, seed=seed)
