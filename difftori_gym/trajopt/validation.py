"""What a user hands to the optimiser at a call, checked once: starts, and what solvers of one's own return."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import BROKEN, HIGH, LOW
from difftori_gym.trajopt.solution import Bounds, Solution

ROUNDING = 1e-4
"""So far outside the box a start is still taken for one that lies on the wall."""


def check_start(actions: Tensor, bounds: Bounds | None) -> None:
    """A ``ValueError`` unless it is ``[B, H >= 1, A >= 1]``, float32 or float64, and inside the box if there is one."""
    if actions.dim() != 3 or 0 in actions.shape[1:] or actions.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"A start needs shape [batch, horizon >= 1, action_dim >= 1] and dtype float32 or float64, "
            f"got {list(actions.shape)} {actions.dtype}: add the missing dimension or cast."
        )
    _check_inside(actions, bounds, "A start")


def check_candidates(candidates: Tensor, actions: Tensor, bounds: Bounds | None) -> None:
    """A ``ValueError`` unless they are ``[N, B, H, A]``, of the start's dtype, and inside the box if there is one."""
    if candidates.dim() != 4 or candidates.shape[1:] != actions.shape or candidates.dtype != actions.dtype:
        raise ValueError(
            f"candidates need shape [N, {', '.join(map(str, actions.shape))}] and dtype {actions.dtype}, got "
            f"{list(candidates.shape)} {candidates.dtype}: put the number of sequences first, or cast."
        )
    _check_inside(candidates, bounds, "candidates")


def _check_inside(actions: Tensor, bounds: Bounds | None, what: str) -> None:
    # On another device the answer would have to be waited for, at every solve: there the start is brought into the
    # box without a word. Numbers that nobody can mean are data, repaired and counted as failed.
    if bounds is None or actions.device.type != "cpu" or not actions.numel():
        return
    numbers = actions.detach()
    least, greatest = torch.aminmax(numbers)
    if least.item() >= LOW - ROUNDING and greatest.item() <= HIGH + ROUNDING:  # False for nan
        return
    outside = ((numbers.abs() > HIGH + ROUNDING) & (numbers.abs() < BROKEN)).nonzero()
    if len(outside):
        place = outside[0].tolist()
        raise ValueError(
            f"{what} inside [-1, 1] is needed for bounds={bounds!r}, got {numbers[tuple(place)].item():g} at "
            f"{place} and {len(outside)} such numbers in all: scale or clamp them, or use bounds=None."
        )


def check_solution(solution: Any, actions: Tensor) -> Solution:
    """What a user's own solver returned; a ``ValueError`` if it is no :class:`Solution`, or a shape is another."""
    if not isinstance(solution, Solution):
        raise ValueError(
            f"A solver needs to return a Solution, got {type(solution).__name__}: "
            "difftori_gym.trajopt.iterates.IterateRecord makes one from the iterates."
        )
    batch = actions.shape[0]
    wanted = dict(actions=actions.shape, best_actions=actions.shape, values=(batch,), failed=(batch,))
    for name, shape in wanted.items():
        if getattr(solution, name).shape != shape:
            raise ValueError(
                f"A solver needs to return {name} of shape {list(shape)}, got {list(getattr(solution, name).shape)}."
            )
    if solution.history.dim() != 2 or solution.history.shape[0] != batch:
        raise ValueError(
            f"A solver needs to return history of shape [{batch}, iterations + 1], got {list(solution.history.shape)}."
        )
    return solution
