"""Treatment of the box, and book-keeping over the iterates of a solver: the best one, the history, what failed."""

from __future__ import annotations

import torch
from torch import Tensor

from difftori_gym.trajopt.objective import Objective
from difftori_gym.trajopt.solution import Bounds, Solution, WallGradient

LOW, HIGH = -1.0, 1.0
INF = float("inf")
BROKEN = 1e6
"""Where there is a box, a start this far outside is no action any more, but a number that broke."""


class _InwardClamp(torch.autograd.Function):
    """Clamp to the box whose backward lets a gradient pass at a wall if descending it leads back inside."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.clamp(LOW, HIGH)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        blocked = ((x > HIGH) & (grad < 0)) | ((x < LOW) & (grad > 0))
        return grad.masked_fill(blocked, 0.0)


def project(actions: Tensor, wall_gradient: WallGradient) -> Tensor:
    """
    Project onto the box [-1, 1].

    :param actions: any shape
    :param wall_gradient: ``"exact"`` is the derivative of the projection, zero outside the box. ``"inward"`` is a
        surrogate: outside the box it passes the gradient whose descent direction points back inside, so that a
        loss can still pull an action off the wall.
    :return: same shape, inside the box
    """
    if wall_gradient == "exact" or not actions.requires_grad:
        return actions.clamp(LOW, HIGH)
    inside: Tensor = _InwardClamp.apply(actions)  # type: ignore[no-untyped-call]
    return inside


def free_gradient(actions: Tensor, gradient: Tensor, zero: float | Tensor = 0.0) -> Tensor:
    """Zero what pushes against a wall that an action touches; ``zero`` as a tensor ``[]`` need not be made one."""
    blocked = actions.detach() == gradient.detach().sign()  # walls are at -1 and 1; where both are 0, no harm is done
    return torch.where(blocked, zero, gradient)


def free_actions(actions: Tensor, gradient: Tensor, bounds: Bounds | None) -> Tensor:
    """Mask ``[B, H, A]`` of actions that no wall holds."""
    if bounds == "project":
        return (free_gradient(actions, gradient) != 0) | (gradient == 0)
    # With "clamp" the objective does not depend on what lies outside.
    return actions.abs() <= HIGH if bounds == "clamp" else torch.ones_like(actions, dtype=torch.bool)


def finite(numbers: Tensor) -> Tensor:
    """Mask of the same shape, False for nan and both infinities; fewer kernels than ``torch.isfinite``."""
    return numbers.abs() < INF


def sound(actions: Tensor, bounds: Bounds | None) -> Tensor:
    """Mask of the same shape, False for what is not finite and, where there is a box, for what is absurdly far off."""
    return actions.abs() < (INF if bounds is None else BROKEN)


def finite_start(actions: Tensor, bounds: Bounds | None) -> tuple[Tensor, Tensor]:
    """
    Replace what is broken in a start by zero and, where there is a box, bring it inside.

    :param actions: start ``[B, H, A]``
    :param bounds: treatment of the box
    :return: usable start (same graph), mask ``[B]`` of samples that had to be repaired
    """
    usable = sound(actions.detach(), bounds)
    start = torch.where(usable, actions, 0.0)
    if bounds is not None:
        start = start.clamp(LOW, HIGH)
    return start, ~usable.flatten(1).all(1)


class IterateRecord:
    """
    Collects what a solver sees, iterate by iterate, and turns it into a :class:`Solution`.

    It only keeps references while the solver runs: everything is worked out once, at the end, because a planner of
    one small problem spends its time on the number of operations, not on their size.

    :param failed: samples ``[B]`` whose start had to be repaired
    """

    def __init__(self, failed: Tensor) -> None:
        self._failed, self._whole = failed, False
        self._iterates: list[Tensor] = []
        self._values: list[Tensor] = []
        self._usable: list[Tensor] = []

    def add(self, actions: Tensor, values: Tensor) -> None:
        """Note one iterate ``[B, H, A]`` and its objective ``[B]``."""
        self._iterates.append(actions.detach())
        self._values.append(values.detach())

    def add_step(self, usable: Tensor) -> None:
        """Note which samples could take a step, False where it was not finite ``[B]``."""
        self._usable.append(usable)

    def is_whole(self, trace: Tensor) -> bool:
        """Whether every value so far, a ``trace`` of any shape and their sum are finite; the device is waited for."""
        self._whole = bool(finite(torch.stack(self._values).sum() + trace.sum()))
        return self._whole

    def solution(self, objective: Objective, last: Tensor, bounds: Bounds | None) -> Solution:
        """
        The record to hand out, ``last`` being the last iterate ``[B, H, A]``.

        Without ``bounds`` the best iterate may lie outside the box and is valued again inside.
        """
        with torch.no_grad():
            history = torch.stack(self._values, dim=1)  # [B, K + 1]
            # The first of the greatest; the start where no value was finite.
            index = history.nan_to_num(-INF, -INF, -INF).argmax(dim=1, keepdim=True)  # [B, 1]
            values = history.gather(1, index).squeeze(1)
            iterates = torch.stack(self._iterates, dim=1)  # [B, K + 1, H, A]
            best = iterates.take_along_dim(index[:, :, None, None], dim=1).squeeze(1)
            if bounds is None:
                best, values = self._inside(objective, best, history[:, 0])
            elif bounds == "clamp":
                best = best.clamp(LOW, HIGH)
            failed = self._failed if self._whole else self._failed | ~finite(history).all(1)
            if self._usable:
                failed = failed | ~torch.stack(self._usable).all(0)
            return Solution(last, best, values, history, failed.sum(), failed=failed)

    def _inside(self, objective: Objective, best: Tensor, start_values: Tensor) -> tuple[Tensor, Tensor]:
        # Clamping can cost more than the ascent gained; then the start is the better answer, if it lies in the box.
        start, best = self._iterates[0], best.clamp(LOW, HIGH)
        values = objective(best)
        start_inside = (start.abs() <= HIGH).flatten(1).all(1) & finite(start_values)
        keep_start = start_inside & ~(values >= start_values)
        best = torch.where(keep_start[:, None, None], start, best)
        return best, torch.where(keep_start, start_values, values)
