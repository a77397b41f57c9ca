"""
Projected gradient ascent with Adam's steps, which shrink on a schedule.

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        a <- project(a + rate_k m / sqrt(v))

with g = dG/da, the means corrected for their start at zero, and rate_k falling geometrically from ``step_size``: to a
tenth of it in the end, or by as much every 30 iterations where there are more. No step is taken back, and the best
iterate is kept: a learned return has creases, where the least of two values changes, and an optimum often lies on one.
An ascent that insists on improving stalls there; steps that cross the crease and shrink close in on it.

Source: Adam (Kingma and Ba 2015, arXiv 1412.6980). Its rates of forgetting are shortened, because tens of iterations
and not thousands are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import IterateRecord, finite, finite_start, project
from difftori_gym.trajopt.linearization import linearize, value_of
from difftori_gym.trajopt.solution import Objective, Solution

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

BETA_1, BETA_2 = 0.5, 0.9
TENTH_AFTER = 30
"""The step size falls to a tenth within so many iterations, or within fewer if there are no more."""
FLOOR = 1e-3
"""Least denominator of an action, as a share of the root mean square over the sample: bounds step and derivative."""

TINY = 1e-20
"""Least square, where a gradient vanishes altogether; its power -3/2 is still a number in single precision."""


def solve(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` steps per sample, each one evaluation of its gradient.

    :param objective: ``[B, H, A]`` -> ``[B]``, differentiable in the actions, twice for a backward mode
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, step_size, bounds, wall_gradient, backward_mode, backward_num_iterations``;
        ``step_size`` is how far the first step moves an action
    :return: the solution; the derivative takes the means of iterations that are not differentiated for constants
    """
    with torch.enable_grad():
        current, failed = finite_start(actions, settings.bounds)
        record = IterateRecord(failed)
        means, size = _Means(current), current
        for index in range(settings.max_iterations):
            differentiate = settings.differentiates(index)
            point, value, gradient = linearize(objective, current, settings, differentiate)
            record.add(point, value)
            if index == 0:
                size = _size(gradient)
            gradient = gradient / size
            usable = finite(gradient.detach().square().sum(dim=(1, 2)) + value.detach())  # [B]
            record.add_step(usable)
            # Masked before the arithmetic: in its backward, 0 * nan would reach what all samples share.
            gradient = torch.where(usable[:, None, None], gradient, 0.0)
            with torch.set_grad_enabled(differentiate):
                current = _moved(point, means.direction(gradient), usable, _rate(index, settings), settings)
        with torch.no_grad():
            record.add(current, value_of(objective, current, settings))
        last = current if settings.backward_mode != "none" else current.detach()
        return record.solution(objective, last, settings.bounds)


def _size(gradient: Tensor) -> Tensor:
    """Largest number of each sample's first gradient ``[B, 1, 1]``. Its unit does not matter, but has a square."""
    size = gradient.detach().abs().amax(dim=(1, 2), keepdim=True)
    return torch.where((size > 0) & finite(size), size, 1.0)


def _moved(point: Tensor, direction: Tensor, usable: Tensor, rate: float, settings: TrajectoryOptimizer) -> Tensor:
    moved = torch.add(point, torch.where(usable[:, None, None], direction, 0.0), alpha=rate)
    return project(moved, settings.wall_gradient) if settings.bounds == "project" else moved


def _rate(index: int, settings: TrajectoryOptimizer) -> float:
    return settings.step_size * 0.1 ** (index / max(min(settings.max_iterations, TENTH_AFTER) - 1, 1))


class _Means:
    """Running means of the gradient and of its square, of actions at a wall as of all others."""

    def __init__(self, actions: Tensor) -> None:
        self._first = self._second = torch.zeros_like(actions.detach())
        self._first_weight = self._second_weight = 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        """
        :param gradient: ``[B, H, A]``
        :return: direction of the next step ``[B, H, A]``, each action's of a size around 1
        """
        self._first = torch.lerp(self._first, gradient, 1.0 - BETA_1)
        self._second = torch.lerp(self._second, gradient.square(), 1.0 - BETA_2)
        # What the means are short of, having started at zero.
        self._first_weight += (1.0 - BETA_1) * (1.0 - self._first_weight)
        self._second_weight += (1.0 - BETA_2) * (1.0 - self._second_weight)
        mean = self._second.mean(dim=(1, 2), keepdim=True)
        size = torch.add(self._second, mean, alpha=FLOOR**2).clamp_min(TINY).rsqrt()
        return self._first * size * (self._second_weight**0.5 / self._first_weight)
