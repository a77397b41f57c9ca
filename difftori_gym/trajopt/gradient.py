"""
Projected gradient ascent whose step adapts to each sample.

a <- project(a + gain * g),  g = dG/da. The first gain moves the steepest action by ``step_size``. After a step that
improves the objective the gain is one of the two of Barzilai and Borwein (1988) in turn, |s|^2 / -(s . y) and
-(s . y) / |y|^2 with the change s of the actions and y of the gradient: inverses of the curvature met along the step.
Where the objective curves upwards the gain grows instead. A step that does not improve is taken back, and the gain
shrinks to where a parabola through both values peaks, or to the second of the two if that is shorter. All of it is
invariant to the scale of the objective.

Source: spectral projected gradients (Birgin, Martinez, Raydan 2000) with alternating gains (Dai and Fletcher 2005), but
monotone. Taking back every step that fails costs the first gain its speed on ill-conditioned problems; the second one,
which is shorter, keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difftori_gym.trajopt.ascent import Point, Trial, ascend
from difftori_gym.trajopt.iterates import HIGH, LOW, free_gradient
from difftori_gym.trajopt.linearization import linearize
from difftori_gym.trajopt.solution import Objective, Solution

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

GROWTH = 4.0
SHRINKAGE = (0.1, 0.5)
LONGEST = HIGH - LOW
"""No step moves an action further than from wall to wall."""


def solve(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` trial steps per sample, each one evaluation of its gradient.

    :param objective: ``[B, H, A]`` -> ``[B]``, differentiable in the actions, twice for a backward mode
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, step_size, bounds, wall_gradient, backward_mode, backward_num_iterations``;
        ``step_size`` is how far the first step moves the steepest action
    :return: the solution; the derivative of ``actions`` takes the gains for constants
    """
    return ascend(objective, actions, settings, _AdaptiveGain(objective, settings))


class _AdaptiveGain:
    stops_early = False

    def __init__(self, objective: Objective, settings: TrajectoryOptimizer) -> None:
        self._objective, self._settings = objective, settings
        self._gain: Tensor | None = None  # [B]
        self._iterations = 0

    def propose(self, point: Point) -> Trial:
        gradient = point.gradient
        if self._settings.bounds == "project":
            gradient = free_gradient(point.actions, gradient)
        steepest = gradient.abs().amax(dim=(1, 2)).clamp_min(torch.finfo(gradient.dtype).tiny * 4)  # [B]
        if self._gain is None:
            self._gain = self._settings.step_size / steepest
        self._gain = torch.minimum(self._gain, LONGEST / steepest)
        return Trial(point.actions + self._gain[:, None, None] * gradient, (self._gain,))

    def adapt(self, point: Point, trial: Point, accepted: Tensor) -> None:
        assert self._gain is not None
        self._iterations += 1
        step = trial.actions - point.actions
        fall = (point.gradient - trial.gradient).masked_fill(step == 0, 0.0)  # -y, among the actions that moved
        curved = (step * fall).sum(dim=(1, 2))  # [B], positive as at a maximum
        long, short = step.square().sum(dim=(1, 2)) / curved, curved / fall.square().sum(dim=(1, 2))
        longer = torch.where(curved > 0, short if self._iterations % 2 else long, GROWTH * self._gain)

        promised = (point.gradient * step).sum(dim=(1, 2))
        missed = promised - (trial.value - point.value)
        peak = self._gain * (0.5 * promised / missed).nan_to_num(SHRINKAGE[0]).clamp(*SHRINKAGE)
        shorter = torch.where((short > 0) & (short < peak), short, peak)
        gain = torch.where(accepted, longer, shorter)
        # A step of length zero has no curvature to tell; its gain stays.
        self._gain = torch.where(torch.isfinite(gain) & (gain > 0), gain, self._gain)

    def repeat(self, actions: Tensor, parameters: tuple[Tensor, ...], takes: Tensor) -> Tensor:
        _, _, gradient = linearize(self._objective, actions, self._settings, differentiate=True)
        (gain,) = parameters
        gradient = torch.where(takes[:, None, None], gradient, 0.0)
        return actions + torch.where(takes, gain, 0.0)[:, None, None] * gradient
