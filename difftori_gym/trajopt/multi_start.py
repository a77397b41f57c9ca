"""Several starts per sample, the best solution of each kept."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import HIGH, LOW, finite, sound
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings, Solve
from difftori_gym.trajopt.solution import Bounds, Solution

NEAR_STD = 0.3
"""Spread of the random starts around the given one."""


def gather_starts(
    actions: Tensor,
    candidates: Tensor | None,
    num_starts: int,
    generator: torch.Generator | None,
    bounds: Bounds | None = None,
) -> Tensor:
    """
    Starts ``[S, B, H, A]``: the given one with its graph, all candidates ``[N, B, H, A]``, zero, and random ones.

    A candidate's entry that is not finite, as in a warm start that a sample does not have, or absurdly far from the
    box, is taken from the given start. A random start is drawn once and serves every sample, so that solving a batch
    equals solving each sample alone; half of them lie around the given one, half anywhere in [-1, 1]. Without a
    generator they are the same at every call, so that a plan is a function of its problem.
    """
    starts = [actions[None]]
    if candidates is not None:
        candidates = candidates.detach()
        starts.append(torch.where(sound(candidates, bounds), candidates, actions.detach()))
    missing = num_starts - sum(len(each) for each in starts)
    if missing > 0:
        starts.append(torch.zeros_like(actions.detach())[None])
    if missing > 1:
        shape = torch.Size((1, *actions.shape[1:]))  # one sample's, which serves all
        wanted = missing // 2, (missing - 1) // 2, shape, actions.dtype, actions.device
        noise, drawn = _fixed_draws(*wanted) if generator is None else draw_starts(*wanted, generator)
        starts.append((actions.detach() + noise).clamp(LOW, HIGH))
        starts.append(drawn.expand(-1, *actions.shape))
    return torch.cat(starts)


def draw_starts(
    near: int, anywhere: int, shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    options: dict[str, Any] = dict(dtype=dtype, device=device, generator=generator)
    noise = NEAR_STD * torch.randn(near, *shape, **options)
    return noise, 2.0 * torch.rand(anywhere, *shape, **options) - 1.0


@lru_cache(maxsize=64)
def _fixed_draws(
    near: int, anywhere: int, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # they outlive the call, and the next one may record a graph
        return draw_starts(near, anywhere, shape, dtype, device, torch.Generator(device).manual_seed(0))


def solve(solver: Solve, objective: FastObjective, starts: Tensor, settings: Settings) -> Solution:
    """
    Solve from all starts ``[S, B, H, A]`` and keep, per sample, the solution with the greatest ``values``, the first of
    equals.

    All are one batch if the objective offers ``repeat``. With a backward mode the winning start is solved once more, so
    that a graph is kept for one start only. ``num_failed`` counts samples for which any start failed.
    """
    searching = settings if settings.backward_mode == "none" else settings.replace(backward_mode="none")
    each = _solve_all(solver, objective, starts, searching)
    values = each["values"]  # [S, B]
    winner = values.masked_fill(~finite(values), -torch.inf).argmax(dim=0)  # [B]
    row = winner * values.shape[1] + torch.arange(values.shape[1], device=values.device)  # [B], in all that was solved
    chosen = {name: each[name].flatten(0, 1).index_select(0, row) for name in each if name != "failed"}
    failed = each["failed"].any(0)
    if settings.backward_mode == "none":
        return Solution(**chosen, num_failed=failed.sum(), failed=failed)
    solution = solver(objective, starts.flatten(0, 1).index_select(0, row), settings)
    # With a graph the gradient may be computed by other kernels; what was found stands, to the last bit.
    kept = {name: chosen[name] for name in ("best_actions", "values")}
    return replace(solution, **kept, num_failed=failed.sum(), failed=failed)


def _solve_all(solver: Solve, objective: FastObjective, starts: Tensor, settings: Settings) -> dict[str, Tensor]:
    """The columns of the solutions from every start, each ``[S, B, ...]``."""
    names = ("actions", "best_actions", "values", "history", "failed")
    repeated = objective.repeat(len(starts))
    if repeated is not None:
        joint = solver(repeated, starts.flatten(0, 1), settings)
        return {name: getattr(joint, name).unflatten(0, starts.shape[:2]) for name in names}
    solutions = [solver(objective, start, settings) for start in starts]
    return {name: torch.stack([getattr(solution, name) for solution in solutions]) for name in names}
