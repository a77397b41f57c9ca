"""From an encoded observation to a plan: how a start is chosen and the optimiser is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from difftori_gym.models import LatentModel, LatentObjective, rollout_prior
from difftori_gym.trajopt import SampledSolution, Solution, TrajectoryOptimizer
from difftori_gym.trajopt.settings import SAMPLING_SOLVERS

Init = Literal["policy", "zero", "random", "warm"]


@dataclass(frozen=True)
class Planner:
    """
    Plans action sequences in a latent model.

    :param optimizer: the solver and its settings
    :param init: start of the optimisation: ``"policy"`` rollout of the prior, ``"zero"``, ``"random"`` uniform,
        ``"warm"`` the previous plan shifted by one step and continued by the prior
    :param discount: per-step discount of the objective, in (0, 1]
    :param num_prior_samples: noisy rollouts of the prior that a sampling solver values beside its own draws
    :param compile: whether the gradient of the objective is compiled by ``torch.compile`` at its first use; where that
        is not possible it is not
    """

    optimizer: TrajectoryOptimizer = TrajectoryOptimizer(solver="lm")
    init: Init = "policy"
    discount: float = 0.99
    num_prior_samples: int = 0
    compile: bool = False

    def start(
        self,
        model: LatentModel,
        z: Tensor,
        horizon: int,
        *,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        :param z: latent states ``[B, Z]``
        :param previous: last plan ``[B, H', A]`` of each sample, rows of nan where there is none; used by ``"warm"``
        :param generator: randomness of ``"random"``
        :return: start ``[B, H, A]`` of H = ``horizon`` steps, in [-1, 1], detached
        """
        shape = (z.shape[0], horizon, model.action_dim)
        if self.init == "zero":
            return z.new_zeros(shape)
        if self.init == "random":
            return 2.0 * torch.rand(shape, dtype=z.dtype, device=z.device, generator=generator) - 1.0
        rollout = rollout_prior(model, z, horizon)
        if self.init == "warm" and previous is not None:
            kept = previous[:, 1 : horizon + 1]
            shifted = torch.cat([kept, rollout[:, kept.shape[1] :]], dim=1)
            rollout = torch.where(torch.isfinite(shifted), shifted, rollout)
        return rollout

    def plan(
        self,
        model: LatentModel,
        z: Tensor,
        horizon: int,
        *,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
        optimizer: TrajectoryOptimizer | None = None,
    ) -> Solution:
        """
        Maximise the imagined return from ``z``.

        :param z: latent states ``[B, Z]``
        :param horizon: H, at least 1
        :param previous: last plans, see :meth:`start`
        :param generator: randomness of the start and of a sampling solver
        :param optimizer: used instead of this planner's own, e.g. with another backward mode
        :return: the solution, differentiable in ``z`` and the model's parameters as far as the optimiser is
        """
        optimizer = optimizer or self.optimizer
        start = self.start(model, z, horizon, previous=previous, generator=generator)
        candidates = None
        if optimizer.solver in SAMPLING_SOLVERS and self.num_prior_samples > 0:
            candidates = self._prior_samples(model, z, horizon, optimizer.min_std, generator)
        return optimizer(
            LatentObjective(model, z, discount=self.discount, compile=self.compile),
            start,
            candidates=candidates,
            generator=generator,
        )

    @property
    def samples(self) -> bool:
        """Whether a plan depends on random draws."""
        return self.init == "random" or self.optimizer.solver in SAMPLING_SOLVERS

    @lru_cache(maxsize=64)  # noqa: B019, planners are small, and equal ones are one
    def for_acting(self) -> Planner:
        """:return: the same planner, keeping no graph"""
        return replace(self, optimizer=self.optimizer.replace(backward_mode="none"))

    def _prior_samples(
        self, model: LatentModel, z: Tensor, horizon: int, std: float, generator: torch.Generator | None
    ) -> Tensor:
        n, batch = self.num_prior_samples, z.shape[0]
        noise = torch.randn(n * batch, horizon, model.action_dim, dtype=z.dtype, device=z.device, generator=generator)
        rollouts = rollout_prior(model, z.repeat(n, 1), horizon, std * noise)
        return rollouts.view(n, batch, horizon, model.action_dim)


def carried_plan(solution: Solution) -> Tensor:
    """What a warm start continues from, ``[B, H, A]``: the mean of a sampling solver, else the best actions."""
    return solution.mean if isinstance(solution, SampledSolution) else solution.best_actions


def near_prior(solution: Solution, model: LatentModel, z: Tensor, radius: float) -> Solution:
    """The plan with its actions brought this near to those of the prior; ``values`` stay those of the plan."""
    prior = rollout_prior(model, z, solution.best_actions.shape[1])
    names = ("actions", "best_actions", *(["mean"] if isinstance(solution, SampledSolution) else []))
    return replace(
        solution, **{name: prior + (getattr(solution, name) - prior).clamp(-radius, radius) for name in names}
    )


def join_solutions(rows: Sequence[Solution]) -> Solution:
    """:return: the solution of all samples of these solutions, which are of one solver"""
    columns = {field.name: [getattr(row, field.name) for row in rows] for field in fields(rows[0])}
    columns = {name: parts for name, parts in columns.items() if parts[0] is not None}
    num_failed = torch.stack(columns.pop("num_failed")).sum()
    return type(rows[0])(**{name: torch.cat(parts) for name, parts in columns.items()}, num_failed=num_failed)
