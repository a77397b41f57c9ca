"""
Differentiation of a solution by the implicit function theorem, whatever solver found it.

At a maximum the gradient g(a, theta) vanishes in the free actions F, those that no wall holds: da_F/dtheta = -H_FF^-1
dg_F/dtheta. A sample whose Newton step, -H_FF^-1 g_F, is too long, or whose -H_FF is not positive definite, is flagged
and gets no gradient. The cost does not depend on the number of iterations.

Source: Amos et al. 2018 (arXiv 1810.13400) for control; Nocedal and Wright 2006, chapter 7, for Newton-CG.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import finite, free_actions
from difftori_gym.trajopt.linearization import hessian, linearize, second_derivative
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import Solution

DENSE_LIMIT = 64
"""Up to so many actions H * A per sample the Hessian is written out; beyond, only products with it are computed."""

TOLERANCE_DIGITS = 0.65
"""Share of the digits of the dtype to which residuals are reduced: 1e-10 in float64, 3e-5 in float32."""

Inverse = Callable[[Tensor], tuple[Tensor, Tensor]]
"""``[B, n]`` -> (-H_FF)^-1 times its free part ``[B, n]``, zero elsewhere; mask ``[B]`` of samples that have one."""


def differentiate(objective: FastObjective, solution: Solution, settings: Settings) -> Solution:
    """The same numbers, ``actions`` with the derivative of the maximum, ``stationarity`` and ``stationary`` set."""
    with torch.enable_grad():
        point, value, gradient = linearize(objective, solution.actions.detach(), settings, differentiate=True)
        with torch.no_grad():
            free = free_actions(point, gradient, settings.bounds).flatten(1)  # [B, n]
            if free.shape[1] <= DENSE_LIMIT:
                inverse = _dense_inverse(hessian(gradient, point, differentiate=False), free)
            else:
                inverse = _matrix_free_inverse(gradient, point, free)
            step, maximum = inverse(gradient.flatten(1))
            length = step.square().sum(1).sqrt()
            distance = torch.where(maximum & finite(value) & finite(length), length, torch.inf)
            stationary = distance <= settings.stationarity_tolerance
        # What is broken must not enter the graph: in its backward 0 * nan would reach what all samples share.
        safe = torch.where(stationary[:, None], gradient.flatten(1), 0.0)
        actions: Tensor = _AtMaximum.apply(  # type: ignore[no-untyped-call]
            solution.actions.detach(), safe, inverse, stationary
        )
    return replace(solution, actions=actions, stationarity=distance, stationary=stationary)


def _dense_inverse(second: Tensor, free: Tensor) -> Inverse:
    usable = finite(second).flatten(1).all(1)
    pairs = free[:, :, None] & free[:, None, :] & usable[:, None, None]
    factor, info = torch.linalg.cholesky_ex(torch.where(pairs, -second, 0.0) + torch.diag_embed((~free).to(second)))
    # Pivots that differ by all the digits there are: what is left of the smaller ones is rounding.
    pivots = factor.diagonal(dim1=1, dim2=2).masked_fill(~free, torch.nan).square()
    least, largest = pivots.nan_to_num(torch.inf).amin(1), pivots.nan_to_num(0.0).amax(1)
    definite = usable & (info == 0) & (least > free.shape[1] * torch.finfo(second.dtype).eps * largest)

    def solve(right: Tensor) -> tuple[Tensor, Tensor]:
        right = torch.where(free & definite[:, None], right, 0.0)
        found = torch.cholesky_solve(right[:, :, None], factor).squeeze(2)
        return torch.where(free & definite[:, None], found, 0.0), definite

    return solve


def _matrix_free_inverse(gradient: Tensor, point: Tensor, free: Tensor) -> Inverse:
    def product(vector: Tensor) -> Tensor:
        masked = torch.where(free, vector, 0.0).view_as(point)
        return torch.where(free, -second_derivative(gradient, point, masked).flatten(1), 0.0)

    # Conjugate gradients meet negative curvature only in directions that the right-hand side contains; a generic one
    # contains all, and cannot be solved for while one of them is negative.
    generic = torch.cos(1.7 * torch.arange(1, free.shape[1] + 1, dtype=point.dtype, device=point.device))
    _, definite = conjugate_gradient(product, torch.where(free, generic, 0.0))

    def solve(right: Tensor) -> tuple[Tensor, Tensor]:
        found, solved = conjugate_gradient(product, torch.where(free & definite[:, None], right, 0.0))
        return torch.where((solved & definite)[:, None], found, 0.0), solved & definite

    return solve


@torch.no_grad()
def conjugate_gradient(product: Callable[[Tensor], Tensor], right: Tensor) -> tuple[Tensor, Tensor]:
    """
    Solve M x = right for each sample, M symmetric and positive definite; ``product`` is ``[B, n]`` -> M times it.

    Also mask ``[B]`` of samples that are solved: a direction of curvature that is not positive, or more than 2 n
    iterations, leave a sample unsolved.
    """
    scale = right.abs().amax(dim=1, keepdim=True)  # [B, 1]; products of small numbers must not underflow
    residual = torch.where(scale > 0, right / scale, 0.0)
    x, direction = torch.zeros_like(right), residual
    squared = residual.square().sum(1)
    target = squared * torch.finfo(right.dtype).eps ** (2.0 * TOLERANCE_DIGITS)
    running = squared > target
    for _ in range(2 * right.shape[1]):
        if not bool(running.any()):  # each product costs as much as a few evaluations of the objective
            break
        image = product(direction)
        curvature = (direction * image).sum(1)
        proceeds = running & (curvature > 0)  # also False for nan
        length = torch.where(proceeds, squared / curvature, 0.0)[:, None]
        x = x + torch.where(proceeds[:, None], length * direction, 0.0)
        residual = residual - torch.where(proceeds[:, None], length * image, 0.0)
        previous, squared = squared, torch.where(proceeds, residual.square().sum(1), squared)
        direction = torch.where(proceeds[:, None], residual + (squared / previous)[:, None] * direction, direction)
        running = proceeds & (squared > target)
    return x * scale, (squared <= target) & torch.isfinite(x).all(1)


class _AtMaximum(torch.autograd.Function):
    """The actions, whose derivative by the gradient is (-H_FF)^-1, the inverse applied when it is asked for."""

    @staticmethod
    def forward(ctx: Any, actions: Tensor, gradient: Tensor, inverse: Inverse, stationary: Tensor) -> Tensor:
        ctx.inverse, ctx.stationary = inverse, stationary
        return actions.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, incoming: Tensor) -> tuple[None, Tensor, None, None]:
        wanted = torch.where(ctx.stationary[:, None], incoming.flatten(1), 0.0)
        found, _ = ctx.inverse(wanted)
        return None, torch.where(ctx.stationary[:, None], found, 0.0), None, None
