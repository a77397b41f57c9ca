"""
A cart-pole with known equations: swing it up, and learn what an expert knows of it from what the expert does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from known_dynamics_learning import Demonstrations, demonstrate
from known_dynamics_systems import TIME_STEP, CartPole, CartPoleCost, Dynamics, PlannedCost, StageCost, wrap
from torch import Tensor

from difftori_gym.trajopt import TrajectoryOptimizer

Unknown = Literal["physics", "cost"]
FIRST_GUESS: dict[Unknown, tuple[float, ...]] = {"physics": (2.0, 0.3, 0.8), "cost": (2.0, 10.0, 1.0, 1.0)}
"""What the learner begins with, in the order of ``CartPole.NAMES`` and ``CartPoleCost.NAMES``."""
SPREAD = (1.0, 0.6, 0.5, 0.5)
"""Expert plans begin this far from upright at most: x, theta, dx, dtheta."""
UPRIGHT = 0.1
"""Radians that count as upright."""


def true_system() -> tuple[CartPole, CartPoleCost]:
    """:return: dynamics and cost that the expert plans with"""
    return (
        CartPole(torch.tensor(CartPole.TRUE, dtype=torch.float64)),
        CartPoleCost(torch.tensor(CartPoleCost.TRUE, dtype=torch.float64)),
    )


@dataclass(frozen=True)
class SwingUpSettings:
    """
    :param angles: of the pole at the beginning, at rest; pi hangs
    :param horizon: steps planned ahead, 0.05 s each
    :param steps: steps driven
    :param first_iterations: Newton steps for the first plan, which has no earlier one to begin from
    :param iterations: Newton steps for each later one
    """

    angles: tuple[float, ...] = (math.pi, 0.75 * math.pi, -0.75 * math.pi, 0.5 * math.pi, -0.5 * math.pi)
    horizon: int = 30
    steps: int = 100
    first_iterations: int = 30
    iterations: int = 3


@dataclass(frozen=True)
class SwingUp:
    """
    What was driven from each start.

    :param states: ``[B, T + 1, 4]``
    :param actions: ``[B, T, 1]``
    :param seconds: processor time of each plan, the first one first
    """

    states: Tensor
    actions: Tensor
    seconds: tuple[float, ...]

    def seconds_to_upright(self) -> Tensor:
        """:return: when the pole was upright and remained so ``[B]``, infinite if it never did"""
        off = wrap(self.states[:, :, 1]).abs() >= UPRIGHT  # [B, T + 1]
        last = torch.arange(off.shape[1]).expand_as(off).masked_fill(~off, -1).amax(dim=1)
        return torch.where(last == off.shape[1] - 1, torch.inf, (last + 1) * TIME_STEP)

    def greatest_angle_of_last_second(self) -> Tensor:
        """:return: radians ``[B]``"""
        return wrap(self.states[:, -round(1.0 / TIME_STEP) :, 1]).abs().amax(dim=1)


@torch.no_grad()
def swing_up(settings: SwingUpSettings) -> SwingUp:
    """
    Drive with a plan that is renewed at every step, from all starts as one batch.

    :param settings: of starts and planner
    :return: what was driven
    """
    dynamics, cost = true_system()
    state = torch.zeros(len(settings.angles), 4, dtype=torch.float64)
    state[:, 1] = torch.tensor(settings.angles)
    plan = torch.zeros(len(state), settings.horizon, 1, dtype=torch.float64)
    # To hang still is stationary: the plan of zeros would stay, so constant pushes to both sides compete with it.
    candidates = torch.stack([torch.full_like(plan, value) for value in (-0.5, 0.5)])
    states, actions, seconds = [state], [], []
    for step in range(settings.steps):
        begin = time.process_time()
        optimizer = TrajectoryOptimizer(
            solver="newton",
            max_iterations=settings.first_iterations if step == 0 else settings.iterations,
            backward_mode="none",
        )
        objective = PlannedCost(dynamics, cost, state)
        plan = optimizer(objective, plan, candidates=candidates if step == 0 else None).best_actions
        seconds.append(time.process_time() - begin)
        actions.append(plan[:, 0])
        state = dynamics(state, plan[:, 0])
        states.append(state)
        plan = torch.cat((plan[:, 1:], torch.zeros_like(plan[:, :1])), dim=1)
    return SwingUp(torch.stack(states, dim=1), torch.stack(actions, dim=1), tuple(seconds))


@dataclass(frozen=True)
class IdentifySettings:
    """
    :param demonstrations: number of expert plans
    :param horizon: their steps
    :param evaluations: most evaluations of the imitation loss with its gradient
    :param planner: of the learner, from a plan of zeros every time, so that the loss is a function of the parameters
    """

    demonstrations: int = 16
    horizon: int = 12
    evaluations: int = 60
    planner: TrajectoryOptimizer = TrajectoryOptimizer(solver="newton", max_iterations=8, backward_mode="implicit")


@dataclass(frozen=True)
class Identified:
    """
    What was learned from an expert's actions.

    :param unknown: what the learner did not know
    :param names: of the parameters
    :param true: their values
    :param history: values at each evaluation of the loss, the first guess first
    :param learned: values at the least loss
    :param losses: imitation loss at each evaluation
    :param seconds: processor time to learn
    """

    unknown: Unknown
    names: tuple[str, ...]
    true: tuple[float, ...]
    history: tuple[tuple[float, ...], ...]
    learned: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float


def expert_plans(settings: IdentifySettings) -> Demonstrations:
    """
    :param settings: number and length
    :return: plans of an expert from around upright
    """
    generator = torch.Generator().manual_seed(0)
    drawn = 2.0 * torch.rand(settings.demonstrations, 4, dtype=torch.float64, generator=generator) - 1.0
    return demonstrate(*true_system(), drawn * torch.tensor(SPREAD, dtype=torch.float64), settings.horizon)


def imitation_loss(
    unknown: Unknown, logarithms: Tensor, demonstrations: Demonstrations, planner: TrajectoryOptimizer
) -> Tensor:
    """
    :param unknown: what ``logarithms`` are of
    :param logarithms: natural logarithms of the parameters, which are positive
    :param demonstrations: expert plans
    :param planner: of the learner
    :return: mean squared difference of all actions, scalar, with the derivative that ``planner`` gives
    """
    dynamics: Dynamics
    cost: StageCost
    dynamics, cost = true_system()
    if unknown == "physics":
        dynamics = CartPole(logarithms.exp())
    else:
        cost = CartPoleCost(logarithms.exp())
    objective = PlannedCost(dynamics, cost, demonstrations.start)
    return (
        (planner(objective, torch.zeros_like(demonstrations.actions)).actions - demonstrations.actions).square().mean()
    )


def identify(unknown: Unknown, settings: IdentifySettings) -> Identified:
    """
    Learn physical parameters or cost weights by L-BFGS on the imitation loss, differentiated through the optimiser.

    :param unknown: which of the two
    :param settings: of the expert and the learner
    :return: what was learned
    """
    demonstrations = expert_plans(settings)
    begin = time.process_time()
    logarithms = torch.tensor(FIRST_GUESS[unknown], dtype=torch.float64).log().requires_grad_()
    history: list[tuple[float, ...]] = []
    losses: list[float] = []
    optimizer = torch.optim.LBFGS(
        [logarithms],
        max_iter=settings.evaluations,
        max_eval=settings.evaluations,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        loss = imitation_loss(unknown, logarithms, demonstrations, settings.planner)
        loss.backward()
        history.append(tuple(logarithms.detach().exp().tolist()))
        losses.append(loss.item())
        return loss

    step: Callable[[Callable[[], Tensor]], Tensor] = optimizer.step
    step(evaluate)
    system = CartPole if unknown == "physics" else CartPoleCost
    best = min(range(len(losses)), key=losses.__getitem__)
    seconds = time.process_time() - begin
    return Identified(unknown, system.NAMES, system.TRUE, tuple(history), history[best], tuple(losses), seconds)
