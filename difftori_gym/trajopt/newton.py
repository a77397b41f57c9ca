"""
Newton's method with the exact Hessian, in a trust region and in the box, for every sample on its own.

A step maximises the model g.d - d.(-H + shift I).d / 2 over the box, with the least ``shift`` that makes the matrix
positive definite and the step as short as the trust region (More and Sorensen 1983). Which actions end at a wall is
found by a primal-dual active set method on the model (Hintermueller, Ito, Kunisch 2003); the trust region follows the
ratio of actual to predicted improvement (Nocedal and Wright 2006, chapter 4).

The Hessian takes H * A products with it, all at once: this is a solver for small H * A. At a saddle it stays.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from difftori_gym.trajopt.ascent import ROUNDING, Point, ascend
from difftori_gym.trajopt.iterates import HIGH, LOW, finite, free_actions
from difftori_gym.trajopt.linearization import hessian, linearize
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution

ACTIVE_SET_ROUNDS = 6
SHIFT_ROUNDS = 10
LONGEST = 100.0
"""First trust radius, per action: a solution that is not absurdly far outside the box is reached in one step."""
FLAT = 1e-6
"""A Hessian smaller than this, relative to the gradient and for actions of size one, counts as zero."""


def solve(objective: FastObjective, actions: Tensor, settings: Settings) -> Solution:
    """
    At most ``settings.max_iterations`` Newton steps per sample.

    ``"unroll"`` and ``"truncated"`` differentiate the objective three times in the actions, the Hessian included, and
    take trust region and active walls for constants.
    """
    return ascend(objective, actions, settings, _TrustRegion(objective, settings))


class _TrustRegion:
    def __init__(self, objective: FastObjective, settings: Settings) -> None:
        self._objective, self._settings = objective, settings
        self._radius: Tensor | None = None  # [B]
        self._hessian: Tensor | None = None  # [B, n, n], at the current iterate

    def propose(self, point: Point) -> tuple[Tensor, tuple[Tensor, ...]]:
        actions, gradient = point.actions.flatten(1).double(), point.gradient.flatten(1).double()
        if self._hessian is None:
            with torch.enable_grad():
                self._hessian = self._linearize(point.actions, differentiate=False)[1]
        if self._radius is None:
            self._radius = torch.full_like(actions[:, 0], LONGEST * math.sqrt(actions.shape[1]))

        usable = finite(self._hessian).flatten(1).all(1) & point.usable()  # eigh raises on the rest
        matrix = torch.where(usable[:, None, None], -self._hessian.double(), 0.0)
        gradient = torch.where(usable[:, None], gradient, 0.0)
        moves, wall = self._first_active_set(point)
        matrix, gradient, scale = _scaled(matrix, gradient, moves)
        shift = _shift(matrix, gradient, self._radius)
        matrix = matrix + torch.diag_embed(shift[:, None].expand_as(gradient))
        rounds = ACTIVE_SET_ROUNDS if self._settings.bounds == "project" else 1
        step, moves, wall = _step_in_box(matrix, gradient, actions, moves, wall, rounds)

        proposal = self._held(actions + step, actions, moves, wall)
        proposal = proposal.masked_fill(~usable[:, None], torch.nan).view_as(point.actions).to(point.actions.dtype)
        return proposal, ((shift * scale).to(proposal.dtype), moves, wall.to(proposal.dtype))

    def adapt(self, point: Point, trial: Point, accepted: Tensor) -> None:
        assert self._hessian is not None
        assert self._radius is not None
        step, gradient = (trial.actions - point.actions).flatten(1), point.gradient.flatten(1)
        curved = torch.einsum("bi,bij,bj->b", step, self._hessian, step)
        predicted, actual = (gradient * step).sum(1) + 0.5 * curved, trial.value - point.value
        ratio = actual / predicted
        told = actual.abs() > ROUNDING * torch.finfo(actual.dtype).eps * point.value.abs()  # else it is rounding

        length = step.double().square().sum(1).sqrt()
        shorter = ~accepted | (told & ~(ratio > 0.25))
        longer = accepted & told & (ratio > 0.75) & (length > 0.7 * self._radius)
        radius = torch.where(longer, 2.0 * self._radius, self._radius)
        self._radius = torch.where(shorter, 0.25 * length, radius).clamp_min(1e-12)
        if accepted.device.type != "cpu" or bool(accepted.any()):  # elsewhere the answer had to be waited for
            self._hessian = None

    def repeat(self, actions: Tensor, parameters: tuple[Tensor, ...], takes: Tensor) -> Tensor:
        shift, moves, wall = parameters
        gradient, second = self._linearize(actions, differentiate=True)
        # Masked before the solve: what is broken must not enter it, nor what is not positive definite.
        matrix = torch.where(takes[:, None, None], -second, 0.0)
        matrix = matrix + torch.diag_embed(torch.where(takes, shift, 1.0)[:, None].expand_as(moves))
        gradient = torch.where(takes[:, None], gradient.flatten(1), 0.0)
        flat = actions.flatten(1)
        held = self._held(flat, flat, moves, wall)
        step = _free_step(matrix, gradient, moves, held - flat)
        return self._held(flat + step, flat, moves, wall).view_as(actions)

    def _linearize(self, actions: Tensor, differentiate: bool) -> tuple[Tensor, Tensor]:
        """Gradient ``[B, H, A]`` and Hessian ``[B, n, n]``."""
        point, _, gradient = linearize(self._objective, actions, self._settings, differentiate=True)
        second = hessian(gradient, point, differentiate)
        return gradient, second

    def _first_active_set(self, point: Point) -> tuple[Tensor, Tensor]:
        """Which actions may move, mask ``[B, n]``, and the wall -1 or 1 of the others, ``[B, n]``."""
        moves = free_actions(point.actions, point.gradient, self._settings.bounds)
        return moves.flatten(1), torch.where(moves, 0.0, point.actions.sign()).flatten(1).double()

    def _held(self, moved: Tensor, actions: Tensor, moves: Tensor, wall: Tensor) -> Tensor:
        """Moved actions ``[B, n]``, the others at their wall or, where there are none, where they are."""
        return torch.where(moves, moved, wall if self._settings.bounds == "project" else actions)


def _scaled(matrix: Tensor, gradient: Tensor, moves: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The model of the actions that move, the others decoupled, all of it in units of its largest entry."""
    matrix = torch.where(moves[:, :, None] & moves[:, None, :], matrix, 0.0)
    gradient = torch.where(moves, gradient, 0.0)
    largest = torch.maximum(matrix.abs().amax(dim=(1, 2)), FLAT * gradient.abs().amax(dim=1))
    scale = largest.clamp_min(torch.finfo(largest.dtype).tiny)  # [B]
    matrix = matrix / scale[:, None, None] + torch.diag_embed((~moves).to(matrix.dtype))
    return matrix, gradient / scale[:, None], scale


def _shift(matrix: Tensor, gradient: Tensor, radius: Tensor) -> Tensor:
    """
    What to add to the diagonal of ``[B, n, n]``, at least 0, so that the step is no longer than ``radius`` ``[B]``.

    A matrix that is not positive definite is trusted no further than the box.
    """
    n = gradient.shape[1]
    eigenvalues, vectors = torch.linalg.eigh(matrix)  # ascending
    along = (vectors.mT @ gradient[:, :, None]).squeeze(2)  # [B, n]
    largest, least = eigenvalues.abs().amax(dim=1), eigenvalues[:, 0]
    definite = least > n * torch.finfo(largest.dtype).eps * largest
    radius = torch.where(definite, radius, radius.clamp(max=math.sqrt(n)))
    shift = torch.where(definite, 0.0, (1e-4 * largest - least).clamp_min(1e-12))
    # Newton's method on 1 / length, which rises to the solution and does not pass it.
    for _ in range(SHIFT_ROUNDS):
        damped = eigenvalues + shift[:, None]
        squares = (along / damped).square()
        length, slope = squares.sum(1).sqrt(), (squares / damped).sum(1)
        change = (length / radius - 1.0) * length.square() / slope
        shift = shift + change.clamp_min(0.0).nan_to_num(0.0, posinf=0.0)
    return shift


def _step_in_box(
    matrix: Tensor, gradient: Tensor, actions: Tensor, moves: Tensor, wall: Tensor, rounds: int
) -> tuple[Tensor, Tensor, Tensor]:
    """
    The step ``[B, n]`` that maximises gradient.d - d.matrix.d / 2 in the box, and ``moves`` and ``wall`` it was made
    with.

    No action starts to move; the others are at their wall, -1 or 1. The last of the ``rounds`` guesses of the active
    set is used even if it is not the right one. ``matrix`` is positive definite.
    """
    may_move = moves
    for index in range(rounds):
        offset = torch.where(moves | ~may_move, 0.0, wall - actions)
        step = _free_step(matrix, gradient, moves, offset)
        if index == rounds - 1:
            break
        reached = actions + step
        push = gradient - (matrix @ step[:, :, None]).squeeze(2)  # what holds an action at its wall
        high = may_move & torch.where(moves, reached > HIGH, (wall > 0) & (push > 0))
        low = may_move & torch.where(moves, reached < LOW, (wall < 0) & (push < 0))
        moves = may_move & ~high & ~low
        wall = torch.where(may_move, high.to(wall.dtype) - low.to(wall.dtype), wall)
    return step, moves, wall


def _free_step(matrix: Tensor, gradient: Tensor, moves: Tensor, offset: Tensor) -> Tensor:
    """The step ``[B, n]`` that is stationary in the moving actions while the others move by ``offset``."""
    offset = torch.where(moves, 0.0, offset)
    right = torch.where(moves, gradient - (matrix @ offset[:, :, None]).squeeze(2), 0.0)
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    matrix = torch.where(moves[:, :, None] & moves[:, None, :], matrix, identity)
    step: Tensor = torch.linalg.solve_ex(matrix, right[:, :, None]).result.squeeze(2)
    return offset + step
