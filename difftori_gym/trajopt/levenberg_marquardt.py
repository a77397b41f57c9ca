"""
Levenberg-Marquardt on the scalar residual of DiffTORI, in closed form.

DiffTORI's released code hands Theseus one residual per sample, r(a) = c - G(a) with c = 1000. The Gauss-Newton matrix
of one residual has rank one, so by Sherman-Morrison the damped step needs no factorisation:

    (g g^T + damping I) delta = r g   =>   delta = r g / (damping + |g|^2),   g = dG/da

Source: DiffTORI (arXiv 2402.05421), released code; Theseus's Levenberg-Marquardt with constant damping.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difftori_gym.trajopt.first_order import climb
from difftori_gym.trajopt.iterates import IterateRecord, finite, free_gradient
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution


def solve(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    """Damped Gauss-Newton steps; a backward mode differentiates the objective twice in the actions."""
    return climb(objective, actions, settings, _DampedGaussNewton)


class _DampedGaussNewton:
    def __init__(self, start: Tensor, settings: Settings) -> None:
        self._settings, self._proposals = settings, [start]
        numbers: Any = settings.damping, settings.residual_offset, 0.0
        if start.device.type == "cpu":  # there a number is made a tensor at every step anew
            numbers = start.new_tensor(numbers).unbind()
        self._damping, self._offset, self._zero = numbers

    def step(self, point: Tensor, value: Tensor, gradient: Tensor, guard: IterateRecord | None) -> Tensor:
        if guard is None:
            self._proposals.append(self._ascend(point, value, gradient))
            return self._proposals[-1]
        with torch.no_grad():
            proposal = self._ascend(point, value, gradient)
            usable = finite(proposal.flatten(1).sum(1))  # [B]
            guard.add_step(usable)
        keep = usable[:, None, None]
        if not torch.is_grad_enabled():
            return torch.where(keep, proposal, point)
        value, gradient = torch.where(usable, value, self._offset), torch.where(keep, gradient, 0.0)
        return self._ascend(point, value, gradient)

    def trace(self) -> Tensor:
        # Once brought back to its wall, a step that broke looks whole.
        return torch.stack(self._proposals)

    def _ascend(self, point: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        free = free_gradient(point, gradient, self._zero) if self._settings.bounds == "project" else gradient
        curvature = (free * free).sum(dim=(1, 2), keepdim=True)  # [B, 1, 1], the one nonzero eigenvalue of J^T J
        gain = (self._offset - value.view(-1, 1, 1)) / (self._damping + curvature)
        return torch.addcmul(point, gain, gradient, value=self._settings.step_size)
