"""
Imitation of an expert's plans by back-propagating through the optimiser that makes them.

The learner has the expert's optimiser but not all of what it optimises: parameters of the dynamics or of the cost, or
a network in place of the dynamics. The loss is the squared difference between the actions of the two plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from known_dynamics_systems import Dynamics, PlannedCost, StageCost, rollout
from torch import Tensor

from difftori_gym.trajopt import TrajectoryOptimizer

PLANNER = TrajectoryOptimizer(solver="newton", max_iterations=15, backward_mode="none")
"""For experts and for evaluation."""
STARTS = (-0.5, 0.5)
"""Constant plans that ``PLANNER`` starts from beside zero: a swing may be better to one side than to the other."""

Model = Callable[[], tuple[Dynamics, StageCost]]
"""Dynamics and cost with the graph of the parameters they are made of; called once per learning step."""


@dataclass(frozen=True)
class Demonstrations:
    """
    Plans of an expert.

    :param start: states ``[N, S]``
    :param actions: its plans from there ``[N, H, 1]``
    :param states: what they lead to ``[N, H + 1, S]``
    """

    start: Tensor
    actions: Tensor
    states: Tensor

    def __getitem__(self, which: slice | Tensor) -> Demonstrations:
        """
        :param which: demonstrations to keep
        :return: these
        """
        return Demonstrations(self.start[which], self.actions[which], self.states[which])


def plan(dynamics: Dynamics, cost: StageCost, start: Tensor, horizon: int) -> Tensor:
    """
    :param dynamics: of the system, or a model of it
    :param cost: per step
    :param start: states ``[N, S]``
    :param horizon: steps, at least 1
    :return: the best plans that ``PLANNER`` finds ``[N, horizon, 1]``
    """
    zero = start.new_zeros(len(start), horizon, 1)
    others = torch.stack([torch.full_like(zero, value) for value in STARTS])
    return PLANNER(PlannedCost(dynamics, cost, start), zero, candidates=others).best_actions


def demonstrate(dynamics: Dynamics, cost: StageCost, start: Tensor, horizon: int) -> Demonstrations:
    """
    :param dynamics: of the system
    :param cost: per step
    :param start: states ``[N, S]``
    :param horizon: steps, at least 1
    :return: the plans of an expert who knows both
    """
    actions = plan(dynamics, cost, start, horizon)
    return Demonstrations(start, actions, rollout(dynamics, start, actions))


@dataclass(frozen=True)
class LearningSettings:
    """
    :param steps: learning steps, at least 1
    :param learning_rate: of Adam at the beginning; it falls to a tenth
    :param batch_size: demonstrations per step
    :param planner: solves from the plan that the last step ended with
    :param restart_every: steps after which all plans begin at zero again, so that none stays in a poor optimum
    :param restart_iterations: iterations of the planner then
    """

    steps: int
    learning_rate: float
    batch_size: int = 100
    planner: TrajectoryOptimizer = TrajectoryOptimizer(solver="newton", max_iterations=3, backward_mode="implicit")
    restart_every: int = 20
    restart_iterations: int = 10


def imitate(
    model: Model,
    parameters: Sequence[Tensor],
    demonstrations: Demonstrations,
    settings: LearningSettings,
    *,
    penalty: Callable[[Demonstrations], Tensor] | None = None,
    after_step: Callable[[int], None] | None = None,
    seed: int = 0,
) -> list[float]:
    """
    Learn ``parameters`` so that the plans under ``model`` are those of the expert.

    :param model: makes dynamics and cost from the parameters
    :param parameters: leaves of the graph
    :param demonstrations: to imitate
    :param settings: of learning and planning
    :param penalty: added to the loss, from the demonstrations of a step
    :param after_step: called with the number of steps taken
    :param seed: of the order of the demonstrations
    :return: imitation loss at each step: the mean squared difference of actions, before the step
    """
    optimizer = torch.optim.Adam(parameters, settings.learning_rate)
    decay = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1.0 / settings.steps))
    generator = torch.Generator().manual_seed(seed)
    plans = torch.zeros_like(demonstrations.actions)
    losses: list[float] = []
    for step in range(settings.steps):
        planner = settings.planner
        if step % settings.restart_every == 0:
            plans.zero_()
        if step % settings.restart_every < len(plans) / settings.batch_size:
            planner = planner.replace(max_iterations=settings.restart_iterations)
        chosen = torch.randperm(len(plans), generator=generator)[: settings.batch_size]
        dynamics, cost = model()
        solution = planner(PlannedCost(dynamics, cost, demonstrations.start[chosen]), plans[chosen])
        plans[chosen] = solution.actions.detach()
        loss = (solution.actions - demonstrations.actions[chosen]).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        (loss if penalty is None else loss + penalty(demonstrations[chosen])).backward()
        optimizer.step()
        decay.step()
        if after_step is not None:
            after_step(step + 1)
    return losses
