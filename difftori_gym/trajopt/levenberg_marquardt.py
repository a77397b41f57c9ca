"""
Levenberg-Marquardt on the scalar residual of DiffTORI, in closed form.

DiffTORI's released code hands Theseus one residual per sample, r(a) = c - G(a) with c = 1000. The Gauss-Newton matrix
of one residual has rank one, so by Sherman-Morrison the damped step needs no factorisation:

    (g g^T + damping I) delta = r g   =>   delta = r g / (damping + |g|^2),   g = dG/da

Source: DiffTORI (arXiv 2402.05421), released code; Theseus's Levenberg-Marquardt with constant damping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import HIGH, LOW, IterateRecord, finite, finite_start, free_gradient, project
from difftori_gym.trajopt.solution import Objective, Solution

if TYPE_CHECKING:
    from difftori_gym.trajopt.optimizer import TrajectoryOptimizer


def solve(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Solution:
    """
    Ascend ``objective`` with ``settings.max_iterations`` damped Gauss-Newton steps per sample.

    :param objective: ``[B, H, A]`` -> ``[B]``, twice differentiable in the actions
    :param actions: start ``[B, H, A]``
    :param settings: uses ``max_iterations, step_size, damping, residual_offset, bounds, wall_gradient,
        backward_mode, backward_num_iterations``
    :return: the solution; ``actions`` carries the graph of the iterations that ``backward_mode`` asks for
    """
    with torch.enable_grad():
        current, failed = finite_start(actions, settings.bounds)
        record = IterateRecord(failed)
        for index in range(settings.max_iterations):
            current = _step(objective, current, settings, record, settings.differentiates(index))
        with torch.no_grad():
            record.add(current, value_of(objective, current, settings))
        last = current if settings.backward_mode != "none" else current.detach()
        return record.solution(objective, last, settings.bounds)


def value_of(objective: Objective, actions: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    """
    :param objective: ``[B, H, A]`` -> ``[B]``
    :param actions: iterate ``[B, H, A]``
    :param settings: with ``bounds="clamp"`` the objective sees clamped actions, as in the released code, while the
        iterate itself may drift away
    :return: objective ``[B]``
    """
    return objective(actions.clamp(LOW, HIGH) if settings.bounds == "clamp" else actions)


def linearize(
    objective: Objective, actions: Tensor, settings: TrajectoryOptimizer, differentiate: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """
    Value and gradient of the objective at an iterate.

    :param objective: ``[B, H, A]`` -> ``[B]``; its ``value_and_gradient``, if any, serves where no graph is wanted
    :param actions: iterate ``[B, H, A]``
    :param settings: treatment of the box
    :param differentiate: whether the gradient gets a graph of its own
    :return: the iterate ``[B, H, A]``, value ``[B]``, gradient ``[B, H, A]``; with a graph if ``differentiate``
    :raises ValueError: if the objective does not depend on the actions
    """
    fast = getattr(objective, "value_and_gradient", None)
    if fast is not None and not differentiate and settings.bounds != "clamp":
        return actions.detach(), *fast(actions.detach())
    point = actions if actions.requires_grad else actions.detach().requires_grad_()
    value = value_of(objective, point, settings)
    (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=differentiate, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "An objective needs to depend on the actions, got values that do not: use the argument it is called with."
        )
    return point, value, gradient


def _step(
    objective: Objective, current: Tensor, settings: TrajectoryOptimizer, record: IterateRecord, differentiate: bool
) -> Tensor:
    point, value, gradient = linearize(objective, current, settings, differentiate)
    record.add(point, value)

    with torch.no_grad():
        proposal = _ascend(point, value, gradient, settings)
        usable = finite(proposal.flatten(1).sum(1))  # [B]
        record.add_step(usable)
    keep = usable[:, None, None]
    if not differentiate:
        return _bounded(torch.where(keep, proposal, point.detach()), settings)
    # Masked before the arithmetic and not after it: in its backward, 0 * nan of a broken sample would otherwise reach
    # the parameters that all samples share.
    value = torch.where(usable, value, settings.residual_offset)
    gradient = torch.where(keep, gradient, 0.0)
    return _bounded(_ascend(point, value, gradient, settings), settings)


def _ascend(point: Tensor, value: Tensor, gradient: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    free = free_gradient(point, gradient) if settings.bounds == "project" else gradient
    curvature = free.square().sum(dim=(1, 2))  # [B], the one nonzero eigenvalue of J^T J
    gain = settings.step_size * (settings.residual_offset - value) / (settings.damping + curvature)
    return point + gain[:, None, None] * gradient


def _bounded(proposal: Tensor, settings: TrajectoryOptimizer) -> Tensor:
    return project(proposal, settings.wall_gradient) if settings.bounds == "project" else proposal
