"""
Levenberg-Marquardt on the scalar residual of DiffTORI, in closed form.

DiffTORI's released code hands Theseus one residual per sample, r(a) = c - G(a) with c = 1000. The Gauss-Newton matrix
of one residual has rank one, so by Sherman-Morrison the damped step needs no factorisation:

    (g g^T + damping I) delta = r g   =>   delta = r g / (damping + |g|^2),   g = dG/da

With ``adaptive_damping`` each sample has a damping of its own, which shrinks after a step that improved it and grows
after one that did not, and which is then taken back.

Source: DiffTORI (arXiv 2402.05421), released code; Theseus's Levenberg-Marquardt with constant damping. The adaptive
damping follows Theseus's ``adaptive_damping`` (Gavin, The Levenberg-Marquardt method for nonlinear least squares) in
its growth and its limits. It differs in what counts as a good step: one that improves, where Theseus asks for a tenth
of what the model predicts of the whole step, which a ``step_size`` below 0.05 cannot give. It also shrinks by 2 where
Theseus shrinks by 9, because with one residual the edge of what improves is soon reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from difftori_gym.trajopt.ascent import Point, Trial, ascend
from difftori_gym.trajopt.iterates import HIGH, LOW, IterateRecord, finite, finite_start, free_gradient, project
from difftori_gym.trajopt.linearization import OwnGradient, linearize, unguarded_gradient, value_only
from difftori_gym.trajopt.solution import Objective, Solution

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer

SHRINKAGE, GROWTH = 2.0, 11.0
LEAST_DAMPING, GREATEST_DAMPING = 1e-7, 1e7


def solve(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` damped Gauss-Newton steps per sample.

    :param objective: ``[B, H, A]`` -> ``[B]``, twice differentiable in the actions
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, step_size, damping, adaptive_damping, residual_offset, bounds,
        wall_gradient, backward_mode, backward_num_iterations``
    :return: the solution; ``actions`` carries the graph of the iterations that ``backward_mode`` asks for
    """
    if settings.adaptive_damping:
        return ascend(objective, actions, settings, _AdaptiveDamping(objective, settings))
    with torch.enable_grad():  # also where the caller has switched it off: "unroll" differentiates in the start
        start, failed = finite_start(actions, settings.bounds)
    gradient_of = unguarded_gradient(objective, settings, start)
    if gradient_of is not None:
        record = IterateRecord(failed)
        last = _climb(objective, gradient_of, start.detach(), settings, record)
        if last is not None:
            return record.solution(objective, last, settings.bounds)
    with torch.enable_grad():
        record, current = IterateRecord(failed), start
        for index in range(settings.max_iterations):
            current = _step(objective, current, settings, record, settings.differentiates(index))
        record.add(current, value_only(objective, current, settings))
        last = current if settings.backward_mode != "none" else current.detach()
        return record.solution(objective, last, settings.bounds)


def _climb(
    objective: Objective,
    gradient_of: OwnGradient,
    current: Tensor,
    settings: TrajectoryOptimizer,
    record: IterateRecord,
) -> Tensor | None:
    """
    The same numbers as repeated :func:`_step` without a look at them on the way, in fewer operations.

    :return: last iterate ``[B, H, A]``, or None if any number turned out to be broken
    """
    proposals = [current]
    # As tensors: a number is made one at every step anew.
    constants = _Constants(*current.new_tensor(_Constants.of(settings)).unbind())
    for _ in range(settings.max_iterations):
        value, gradient = gradient_of(current)
        record.add(current, value)
        proposals.append(_ascend(current, value, gradient, settings, constants))
        current = proposals[-1].clamp(LOW, HIGH) if settings.bounds == "project" else proposals[-1]
    record.add(current, value_only(objective, current, settings))
    return current if record.is_whole() and bool(finite(torch.stack(proposals).sum())) else None


def _step(
    objective: Objective, current: Tensor, settings: TrajectoryOptimizer, record: IterateRecord, differentiate: bool
) -> Tensor:
    point, value, gradient = linearize(objective, current, settings, differentiate)
    record.add(point, value)

    with torch.no_grad():
        proposal = _ascend(point, value, gradient, settings, _Constants.of(settings))
        usable = finite(proposal.flatten(1).sum(1))  # [B]
        record.add_step(usable)
    keep = usable[:, None, None]
    if not differentiate:
        return _bounded(torch.where(keep, proposal, point.detach()), settings)
    # Masked before the arithmetic and not after it: in its backward, 0 * nan of a broken sample would otherwise reach
    # the parameters that all samples share.
    value = torch.where(usable, value, settings.residual_offset)
    gradient = torch.where(keep, gradient, 0.0)
    return _bounded(_ascend(point, value, gradient, settings, _Constants.of(settings)), settings)


class _Constants(NamedTuple):
    damping: float | Tensor
    offset: float | Tensor
    zero: float | Tensor

    @classmethod
    def of(cls, settings: TrajectoryOptimizer, damping: Tensor | None = None) -> _Constants:
        return cls(settings.damping if damping is None else damping, settings.residual_offset, 0.0)


def _ascend(
    point: Tensor, value: Tensor, gradient: Tensor, settings: TrajectoryOptimizer, constants: _Constants
) -> Tensor:
    free = free_gradient(point, gradient, constants.zero) if settings.bounds == "project" else gradient
    curvature = (free * free).sum(dim=(1, 2))  # [B], the one nonzero eigenvalue of J^T J
    gain = (constants.offset - value) / (constants.damping + curvature)
    return torch.addcmul(point, gain[:, None, None], gradient, value=settings.step_size)


def _bounded(proposal: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    return project(proposal, settings.wall_gradient) if settings.bounds == "project" else proposal


class _AdaptiveDamping:
    stops_early = False

    def __init__(self, objective: Objective, settings: TrajectoryOptimizer) -> None:
        self._objective, self._settings = objective, settings
        self._damping: Tensor | None = None  # [B]

    def propose(self, point: Point) -> Trial:
        if self._damping is None:
            self._damping = torch.full_like(point.value, self._settings.damping)
        constants = _Constants.of(self._settings, self._damping)
        proposal = _ascend(point.actions, point.value, point.gradient, self._settings, constants)
        return Trial(proposal, (self._damping,))

    def adapt(self, point: Point, trial: Point, accepted: Tensor) -> None:
        assert self._damping is not None
        damping = torch.where(accepted, self._damping / SHRINKAGE, self._damping * GROWTH)
        self._damping = damping.clamp(LEAST_DAMPING, GREATEST_DAMPING)

    def repeat(self, actions: Tensor, parameters: tuple[Tensor, ...], takes: Tensor) -> Tensor:
        point, value, gradient = linearize(self._objective, actions, self._settings, differentiate=True)
        (damping,) = parameters
        value = torch.where(takes, value, self._settings.residual_offset)
        gradient = torch.where(takes[:, None, None], gradient, 0.0)
        return _ascend(point, value, gradient, self._settings, _Constants.of(self._settings, damping))
