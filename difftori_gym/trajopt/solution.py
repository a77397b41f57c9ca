"""The record every solver returns, and the names of the choices a solver takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

BackwardMode = Literal["unroll", "truncated", "implicit", "none"]
Bounds = Literal["project", "clamp"]
WallGradient = Literal["exact", "inward"]


@dataclass(frozen=True)
class Solution:
    """
    What a trajectory optimiser found. ``B`` samples, ``H`` steps, ``A`` action dimensions, ``K`` iterations.

    :param actions: last iterate ``[B, H, A]``, differentiable unless ``backward_mode="none"``: train on this
    :param best_actions: best iterate ``[B, H, A]``, detached, finite and inside [-1, 1]: act with this
    :param values: objective at ``best_actions`` ``[B]``, detached; not finite where the objective never was
    :param history: objective per iterate ``[B, K + 1]``, detached
    :param num_failed: number of samples (integer tensor ``[]``, left on the device) for which the start, the objective
        or a step was not finite at least once; such a sample stays where it was and gets no gradient from that step
    :param failed: which samples these are, mask ``[B]``
    :param stationarity: how far from a maximum ``actions`` are ``[B]``, for ``backward_mode="implicit"``: the gradient
        over the actions that no wall holds, in the metric of the curvature there, |H_FF^-1 g_F|, which is the length of
        the Newton step that is left, in units of actions and whatever the scale of the objective; infinite where -H_FF
        is not positive definite
    :param stationary: mask ``[B]``, whether that is at most ``stationarity_tolerance``, for ``"implicit"``; a sample
        that is not stationary gets no gradient
    """

    actions: Tensor
    best_actions: Tensor
    values: Tensor
    history: Tensor
    num_failed: Tensor
    failed: Tensor = field(kw_only=True)
    stationarity: Tensor | None = field(default=None, kw_only=True)
    stationary: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class SampledSolution(Solution):
    """
    A solution of a sampling solver, which also knows the distribution it ended with.

    :param mean: mean of the final sampling distribution ``[B, H, A]``, what a warm start continues from
    :param std: its standard deviation ``[B, H, A]``, what exploration noise is scaled with
    """

    mean: Tensor
    std: Tensor
