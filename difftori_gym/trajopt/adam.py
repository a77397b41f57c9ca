"""
Projected gradient ascent with Adam's steps, which shrink on a schedule.

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        a <- project(a + rate_k m / sqrt(v))

with g = dG/da, the means corrected for their start at zero, and rate_k falling geometrically from ``step_size``, to a
tenth of it every 36 iterations. No step is taken back, and the best iterate is kept: a learned return has creases,
where the least of two values changes, and an optimum often lies on one. An ascent that insists on improving stalls
there; steps that cross the crease and shrink close in on it.

Source: Adam (Kingma and Ba 2015, arXiv 1412.6980). Its rates of forgetting are shortened, because tens of iterations
and not thousands are made. They, and the rate, were chosen on trained models (benchmarks/README.md). With a b2 of 0.7
or 0.8 more is reached, but the derivative through the iterations breaks: 1 / sqrt(v) changes too fast near an optimum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import HIGH, LOW, IterateRecord, finite, finite_start, project
from difftori_gym.trajopt.linearization import OwnGradient, linearize, unguarded_gradient, value_only
from difftori_gym.trajopt.solution import Objective, Solution

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

BETA_1, BETA_2 = 0.5, 0.9
TENTH_AFTER = 36
"""The step size falls to a tenth within so many iterations."""
FLOOR = 1e-3
"""Least denominator of an action, as a share of the root mean square over the sample: bounds step and derivative."""

TINY = 1e-20
"""Least square, where a gradient vanishes altogether; its power -3/2 is still a number in single precision."""


def solve(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` steps per sample, each one evaluation of its gradient, and one
    more for the value in the end.

    :param objective: ``[B, H, A]`` -> ``[B]``, differentiable in the actions, twice for a backward mode
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, step_size, bounds, wall_gradient, backward_mode, backward_num_iterations``;
        ``step_size`` is how far the first step moves an action
    :return: the solution; the derivative takes the means of iterations that are not differentiated for constants
    """
    with torch.enable_grad():  # also where the caller has switched it off: "unroll" differentiates in the start
        start, failed = finite_start(actions, settings.bounds)
    gradient_of = unguarded_gradient(objective, settings, start)
    if gradient_of is not None:
        record = IterateRecord(failed)
        last = _climb(objective, gradient_of, start.detach(), settings, record)
        if last is not None:
            return record.solution(objective, last, settings.bounds)
    with torch.enable_grad():
        record = IterateRecord(failed)
        last = _climb_guarded(objective, start, settings, record)
        record.add(last, value_only(objective, last, settings))
        last = last if settings.backward_mode != "none" else last.detach()
        return record.solution(objective, last, settings.bounds)


def _climb_guarded(
    objective: Objective, current: Tensor, settings: TrajectoryOptimizer, record: IterateRecord
) -> Tensor:
    """All iterations, each of which leaves out the samples whose numbers are broken; with a graph where one is due."""
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
        # Masked before the arithmetic: in its backward, 0 * nan would otherwise reach what all samples share.
        gradient = torch.where(usable[:, None, None], gradient, 0.0)
        with torch.set_grad_enabled(differentiate):
            direction = means.direction(gradient)
            current = _moved(point, direction, usable, _rate(index, settings) * means.correction, settings)
    return current


def _climb(
    objective: Objective,
    gradient_of: OwnGradient,
    current: Tensor,
    settings: TrajectoryOptimizer,
    record: IterateRecord,
) -> Tensor | None:
    """
    The same numbers as :func:`_climb_guarded` without a look at them on the way, in half the operations: at batch 1
    these are what takes the time.

    :return: last iterate ``[B, H, A]``, or None if any number turned out to be broken
    """
    means, size = _Means(current), current
    for index in range(settings.max_iterations):
        value, gradient = gradient_of(current)
        record.add(current, value)
        if index == 0:
            size = _size(gradient)
        direction = means.direction(gradient / size)
        current = torch.add(current, direction, alpha=_rate(index, settings) * means.correction)
        if settings.bounds == "project":
            current.clamp_(LOW, HIGH)
    record.add(current, value_only(objective, current, settings))
    # What broke on the way is still broken here: nan and infinity leave neither the iterates nor a mean again.
    return current if record.is_whole() and bool(finite(means.second.sum())) else None


def _size(gradient: Tensor) -> Tensor:
    """Largest number of each sample's first gradient ``[B, 1, 1]``. Its unit does not matter, but has a square."""
    size = gradient.detach().abs().amax(dim=(1, 2), keepdim=True)
    return torch.where((size > 0) & finite(size), size, 1.0)


def _moved(point: Tensor, direction: Tensor, usable: Tensor, rate: float, settings: TrajectoryOptimizer) -> Tensor:
    moved = torch.add(point, torch.where(usable[:, None, None], direction, 0.0), alpha=rate)
    return project(moved, settings.wall_gradient) if settings.bounds == "project" else moved


def _rate(index: int, settings: TrajectoryOptimizer) -> float:
    return settings.step_size * 0.1 ** (index / TENTH_AFTER)


class _Means:
    """Running means of the gradient and of its square, of actions at a wall as of all others."""

    def __init__(self, actions: Tensor) -> None:
        self._first = self.second = torch.zeros_like(actions.detach())
        self._first_weight = self._second_weight = 0.0

    def direction(self, gradient: Tensor) -> Tensor:
        """
        :param gradient: ``[B, H, A]``
        :return: direction of the next step ``[B, H, A]``; times :attr:`correction`, each action's is of a size around 1
        """
        self._first = torch.lerp(self._first, gradient, 1.0 - BETA_1)
        self.second = torch.lerp(self.second, gradient.square(), 1.0 - BETA_2)
        self._first_weight += (1.0 - BETA_1) * (1.0 - self._first_weight)
        self._second_weight += (1.0 - BETA_2) * (1.0 - self._second_weight)
        mean = self.second.mean(dim=(1, 2), keepdim=True)
        return self._first * torch.add(self.second, mean, alpha=FLOOR**2).clamp_min(TINY).rsqrt()

    @property
    def correction(self) -> float:
        """What the means are short of, having started at zero."""
        return self._second_weight**0.5 / self._first_weight
