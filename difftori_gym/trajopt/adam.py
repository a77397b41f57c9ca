"""
Projected gradient ascent with Adam's steps, which shrink on a schedule.

    m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2        a <- project(a + rate_k m / sqrt(v))

with g = dG/da, the means corrected for their start at zero, and rate_k falling geometrically from ``step_size``, to a
tenth of it every 36 iterations. No step is taken back: an optimum often lies on a crease, where the least of two values
changes, and steps that cross it and shrink close in on it, where an ascent that insists on improving stalls.

Source: Adam (Kingma and Ba 2015, arXiv 1412.6980); the constants were chosen on trained models (benchmarks/README.md).
With a b2 of 0.7 or 0.8 more is reached, but the derivative breaks: 1 / sqrt(v) changes too fast near an optimum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from difftori_gym.trajopt.first_order import climb
from difftori_gym.trajopt.iterates import IterateRecord, finite
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution

BETA_1, BETA_2 = 0.5, 0.9
TENTH_AFTER = 36
"""The step size falls to a tenth within so many iterations."""
FLOOR = 1e-3
"""Least denominator of an action, as a share of the root mean square over the sample: bounds step and derivative."""

TINY = 1e-20
"""Least square, where a gradient vanishes altogether; its power -3/2 is still a number in single precision."""


def solve(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    """
    Steps of one gradient each, and one value more in the end; ``step_size`` is how far the first one moves an action.

    The derivative takes the means of iterations that are not differentiated for constants.
    """
    return climb(objective, actions, settings, _ShrinkingSteps)


class _ShrinkingSteps:
    """Steps by running means of the gradient and of its square, of actions at a wall as of all others."""

    def __init__(self, start: Tensor, settings: Settings) -> None:
        self._first = self._second = torch.zeros_like(start.detach())
        self._first_weight = self._second_weight = 0.0
        self._step_size, self._size, self._index = settings.step_size, start, 0

    def step(self, point: Tensor, value: Tensor, gradient: Tensor, guard: IterateRecord | None) -> Tensor:
        if self._index == 0:
            self._size = _size(gradient)
        gradient = gradient / self._size
        if guard is not None:
            usable = finite(gradient.detach().square().sum(dim=(1, 2)) + value.detach())  # [B]
            guard.add_step(usable)
            gradient = torch.where(usable[:, None, None], gradient, 0.0)
        direction = self._direction(gradient)
        if guard is not None:
            direction = torch.where(usable[:, None, None], direction, 0.0)
        rate = self._step_size * 0.1 ** (self._index / TENTH_AFTER)
        self._index += 1
        # What the means are short of, having started at zero.
        return torch.add(point, direction, alpha=rate * (self._second_weight**0.5 / self._first_weight))

    def trace(self) -> Tensor:
        # nan and infinity leave neither the iterates nor a mean again.
        return self._second

    def _direction(self, gradient: Tensor) -> Tensor:
        self._first = torch.lerp(self._first, gradient, 1.0 - BETA_1)
        self._second = torch.lerp(self._second, gradient.square(), 1.0 - BETA_2)
        self._first_weight += (1.0 - BETA_1) * (1.0 - self._first_weight)
        self._second_weight += (1.0 - BETA_2) * (1.0 - self._second_weight)
        mean = self._second.mean(dim=(1, 2), keepdim=True)
        return self._first * torch.add(self._second, mean, alpha=FLOOR**2).clamp_min(TINY).rsqrt()


def _size(gradient: Tensor) -> Tensor:
    """Largest number of each sample's first gradient ``[B, 1, 1]``. Its unit does not matter, but has a square."""
    size = gradient.detach().abs().amax(dim=(1, 2), keepdim=True)
    return torch.where((size > 0) & finite(size), size, 1.0)
