"""
How TD-MPC2 plans: MPPI over the return of an imagined rollout that ends in sampled values of a sampled action.

Source: its released code (nicklashansen/tdmpc2), which the paper refers to for these details.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..rl.planning import Init, Planner
from ..trajopt import SampledSolution, Solution, TrajectoryOptimizer
from ..trajopt.settings import SAMPLING_SOLVERS
from .tdmpc2_networks import TDMPC2Model

_MPPI = TrajectoryOptimizer(solver="mppi", momentum=0.0, backward_mode="none")


class SampledReturn:
    """
    Action sequences ``[B, H, A]`` -> imagined returns ``[B]``, whose last value is the mean of two values, drawn anew
    at each call, of an action that is drawn from the policy prior.

    :param model: what is imagined with
    :param z0: latent states ``[B, Z]``
    :param discount: per-step discount, in (0, 1]
    :param generator: randomness; torch's global one if None
    """

    def __init__(
        self, model: TDMPC2Model, z0: Tensor, *, discount: float, generator: torch.Generator | None = None
    ) -> None:
        self.model, self.z0, self.discount, self.generator = model, z0, discount, generator
        # Members are chosen on the host: only those chosen are computed, and a device is waited for once a plan.
        self._chooser = random.Random(int(torch.randint(2**62, (), device=z0.device, generator=generator)))

    def __call__(self, actions: Tensor) -> Tensor:
        """Actions ``[B, H, A]`` in [-1, 1] -> returns ``[B]``, differentiable in them; terminations are not."""
        return self._values(actions[None])[0]

    def repeat(self, n: int) -> SampledReturn:
        """The objective of ``n`` copies of the batch, one after the other."""
        return SampledReturn(self.model, self.z0.repeat(n, 1), discount=self.discount, generator=self.generator)

    @torch.no_grad()
    def values_of_draws(self, draws: Tensor) -> Tensor:
        """Sequences ``[N, B, H, A]`` -> returns ``[N, B]``, without a graph."""
        return self._values(draws)

    def _values(self, draws: Tensor) -> Tensor:
        model, (n, batch, horizon, _) = self.model, draws.shape
        z = self.z0.expand(n, -1, -1).reshape(n * batch, -1)
        rows = draws.reshape(n * batch, horizon, -1)
        total, weight = torch.zeros_like(z[:, 0]), torch.ones_like(z[:, 0])
        for action in rows.unbind(dim=1):
            z, reward = model.next(z, action)
            total = total + weight * reward
            weight = weight * self.discount
            if model.episodic:
                weight = weight * model.survival(z)
        noise = torch.randn(rows[:, 0].shape, dtype=z.dtype, device=z.device, generator=self.generator)
        members = len(model.critic.members)
        two = self._chooser.sample(range(members), min(2, members))
        value = model.Q(z, model.sample(z, noise).action, two).mean(dim=0)
        return (total + weight * value).view(n, batch)


@dataclass(frozen=True)
class TDMPC2Planner(Planner):
    """
    Plans as TD-MPC2 does. Its parameters are those of :class:`~difftori_gym.rl.planning.Planner`, with these meanings:

    :param init: ``"warm"``: the last mean shifted by one step, zero where it ends and where an episode starts
    :param num_prior_samples: rollouts of the policy prior, its actions drawn, beside a sampling solver's own draws
    """

    optimizer: TrajectoryOptimizer = _MPPI
    init: Init = "warm"
    num_prior_samples: int = 24

    def start(
        self,
        model: Any,
        z: Tensor,
        horizon: int,
        *,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """See :meth:`~difftori_gym.rl.planning.Planner.start`."""
        start = z.new_zeros(z.shape[0], horizon, model.action_dim)
        if previous is not None:
            kept = previous[:, 1 : horizon + 1]
            start[:, : kept.shape[1]] = kept.nan_to_num()
        return start

    def plan(
        self,
        model: Any,
        z: Tensor,
        horizon: int,
        *,
        previous: Tensor | None = None,
        generator: torch.Generator | None = None,
        optimizer: TrajectoryOptimizer | None = None,
    ) -> Solution:
        """
        See :meth:`~difftori_gym.rl.planning.Planner.plan`.

        :return: the solution; of a sampling solver ``best_actions`` are the elite that is drawn by its value, which
            TD-MPC2 executes in evaluation, too, and ``values`` theirs
        """
        optimizer = optimizer or self.optimizer
        start = self.start(model, z, horizon, previous=previous)
        objective = SampledReturn(model, z, discount=self.discount, generator=generator)
        if optimizer.solver not in SAMPLING_SOLVERS:
            return optimizer(objective, start, generator=generator)
        candidates = None
        if self.num_prior_samples > 0:
            candidates = self._prior_samples(model, z, horizon, 1.0, generator)
        solution = optimizer(objective, start, candidates=candidates, generator=generator)
        assert isinstance(solution, SampledSolution)
        values = objective.values_of_draws(solution.actions[None])[0]
        return replace(solution, best_actions=solution.actions, values=values)

    @torch.no_grad()
    def _prior_samples(
        self, model: Any, z: Tensor, horizon: int, std: float, generator: torch.Generator | None
    ) -> Tensor:
        n, batch = self.num_prior_samples, z.shape[0]
        noise = torch.randn(horizon, n * batch, model.action_dim, dtype=z.dtype, device=z.device, generator=generator)
        z, actions = z.repeat(n, 1), []
        for t in range(horizon):
            actions.append(model.sample(z, std * noise[t]).action)
            if t + 1 < horizon:
                z = model.dynamics(torch.cat([z, actions[-1]], dim=-1))
        return torch.stack(actions, dim=1).view(n, batch, horizon, model.action_dim)
