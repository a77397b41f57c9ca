"""
The loop that all sampling solvers share: draw from a Gaussian over action sequences, refit it to the best draws.

A solver is this loop with a weighting of its own: how much each elite counts in the refit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from difftori_gym.trajopt.iterates import finite_start
from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import SampledSolution

Weighting = Callable[[Tensor, Settings], Tensor]
"""Values of the elites ``[E, B]``, best first, ``-inf`` where broken -> weights ``[E, B]`` that sum to 1 over E."""


@torch.no_grad()
def refit_to_elites(
    objective: FastObjective,
    actions: Tensor,
    settings: Settings,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
    *,
    weighting: Weighting,
) -> SampledSolution:
    """
    Refit a Gaussian, at first with mean ``actions``, to the best of ``num_samples`` draws, ``max_iterations`` times.

    The objective is called under ``torch.vmap`` over the samples, unless it has ``values_of_draws``. Candidates
    ``[N, B, H, A]``, e.g. rollouts of a policy prior, compete beside the draws in every iteration and count towards
    ``num_samples``. ``best_actions`` are the best sequence seen, ``actions`` one elite of the last iteration drawn in
    proportion to its weight; nothing is differentiable.
    """
    mean, failed = finite_start(actions.detach(), "project")
    std = torch.full_like(mean, settings.max_std)
    fixed = mean.new_zeros(0, *mean.shape) if candidates is None else candidates.detach().nan_to_num().clamp(-1, 1)
    num_draws = max(settings.num_samples - fixed.shape[0], 1)
    value_of = _valuation(objective)

    best, best_values, history = mean, value_of(mean[None])[0], []
    history.append(best_values)
    failed = failed | ~torch.isfinite(best_values)
    best_values = best_values.masked_fill(~torch.isfinite(best_values), -torch.inf)
    drawn = mean
    for _ in range(settings.max_iterations):
        noise = torch.randn(num_draws, *mean.shape, dtype=mean.dtype, device=mean.device, generator=generator)
        samples = torch.cat([(mean + std * noise).clamp(-1.0, 1.0), fixed])  # [N, B, H, A]
        values = value_of(samples)  # [N, B]
        finite = torch.isfinite(values)
        failed = failed | ~finite.all(0)
        values = values.masked_fill(~finite, -torch.inf)

        elite_values, index = values.topk(min(settings.num_elites, values.shape[0]), dim=0)  # [E, B]
        elites = samples.gather(0, index[:, :, None, None].expand(-1, -1, *mean.shape[1:]))  # [E, B, H, A]
        # Where every draw failed the weights are nan; such a sample keeps its mean and the best it had.
        usable = torch.isfinite(elite_values[0])
        weights = weighting(elite_values, settings).nan_to_num()  # [E, B]
        w = weights[:, :, None, None]
        new_mean = (w * elites).sum(0)
        spread = (w * (elites - new_mean).square()).sum(0).sqrt()
        keep = ~usable[:, None, None]
        std = torch.where(keep, std, spread.clamp(settings.min_std, settings.max_std))
        drawn = torch.where(keep, drawn, _draw(elites, weights, generator))
        mean = torch.where(keep, mean, settings.momentum * mean + (1 - settings.momentum) * new_mean)

        better = elite_values[0] > best_values
        best_values = torch.where(better, elite_values[0], best_values)
        best = torch.where(better[:, None, None], elites[0], best)
        history.append(elite_values[0])
    return SampledSolution(drawn, best, best_values, torch.stack(history, 1), failed.sum(), mean, std, failed=failed)


def _draw(elites: Tensor, weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """One of the elites ``[E, B, H, A]`` per sample, with probability ``weights`` ``[E, B]`` -> ``[B, H, A]``."""
    probabilities = weights.T + torch.finfo(weights.dtype).tiny  # multinomial refuses a row of zeros
    chosen = torch.multinomial(probabilities, 1, generator=generator)  # [B, 1]
    index = chosen[:, 0][None, :, None, None].expand(1, -1, *elites.shape[2:])
    return elites.gather(0, index)[0]


def _valuation(objective: FastObjective) -> Callable[[Tensor], Tensor]:
    """Draws ``[N, B, H, A]`` -> values ``[N, B]``."""
    one_by_one = torch.vmap(objective, randomness="different")

    def value_of(draws: Tensor) -> Tensor:
        values = objective.values_of_draws(draws)
        return one_by_one(draws) if values is None else values

    return value_of
