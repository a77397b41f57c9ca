"""
The loop that all first-order solvers share: the gradient at the iterate, a step, and the next one.

A solver is this loop with a rule of its own how to step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import IterateRecord, finite_start, project
from difftori_gym.trajopt.linearization import linearize, value_only
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution


class StepRule(Protocol):
    """How a solver steps. An instance lives for one ascent."""

    def step(self, point: Tensor, value: Tensor, gradient: Tensor, guard: IterateRecord | None) -> Tensor:
        """
        Where a step leads ``[B, H, A]``, possibly outside the box, from a point with its value ``[B]`` and gradient.

        ``guard`` is told which samples can take the step; the others stay, and are masked before the arithmetic and not
        after it: in its backward, 0 * nan would otherwise reach what all samples share. None asks for the same numbers
        without a look at them.
        """

    def trace(self) -> Tensor:
        """Any shape; not finite if a step was taken without a guard that a guard would have refused."""


def climb(
    objective: FastObjective, actions: Tensor, settings: Settings, rule: Callable[[Tensor, Settings], StepRule]
) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` steps per sample.

    At batch 1 calls of small operations are what takes the time, and guards cost as much as the rest of a step. So
    where an objective brings its gradient, the numbers of a plan without a derivative are looked at in the end; if one
    is broken, all is done again with guards.

    :param objective: ``[B, H, A]`` -> ``[B]``
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, bounds, wall_gradient, backward_mode, backward_num_iterations``
    :param rule: makes a rule from the start
    :return: the solution; ``actions`` carries the graph of the iterations that ``backward_mode`` asks for
    """
    with torch.enable_grad():  # also where the caller has switched it off: "unroll" differentiates in the start
        start, failed = finite_start(actions, settings.bounds)
        solution = None
        if may_look_in_the_end(settings, start):
            solution = _climb(objective, start.detach(), settings, rule(start, settings), failed, guarded=False)
        if solution is None:
            solution = _climb(objective, start, settings, rule(start, settings), failed, guarded=True)
        assert solution is not None
        return solution


def may_look_in_the_end(settings: Settings, start: Tensor) -> bool:
    """Whether guards can be left out; on another device the last look at the numbers had to be waited for."""
    numbers_only = settings.backward_mode == "none" and settings.bounds != "clamp"
    return numbers_only and start.device.type == "cpu" and start.numel() > 0


def _climb(
    objective: FastObjective, current: Tensor, settings: Settings, rule: StepRule, failed: Tensor, guarded: bool
) -> Solution | None:
    """The solution; without guards None where the objective brings no gradient, or a number turned out to be broken."""
    record = IterateRecord(failed)
    for index in range(settings.max_iterations):
        differentiate = settings.differentiates(index)
        if guarded:
            point, value, gradient = linearize(objective, current, settings, differentiate)
        else:
            found = objective.value_and_gradient(current)
            if found is None:
                return None
            point, (value, gradient) = current, found
        record.add(point, value)
        with torch.set_grad_enabled(differentiate):
            current = rule.step(point, value, gradient, record if guarded else None)
            if settings.bounds == "project":
                current = project(current, settings.wall_gradient)
    record.add(current, value_only(objective, current, settings))
    if not guarded and not record.is_whole(rule.trace()):
        return None
    last = current if settings.backward_mode != "none" else current.detach()
    return record.solution(objective, last, settings.bounds)
