"""
Cross-entropy method: a Gaussian over action sequences, refitted to its elites, all of which count the same.

Source: Rubinstein and Kroese, The Cross-Entropy Method (2004); as a planner in a learned model: PETS (Chua et al. 2018,
arXiv 1805.12114) and PlaNet (Hafner et al. 2019, arXiv 1811.04551).
"""

from __future__ import annotations

import torch
from torch import Tensor

from difftori_gym.trajopt.objective import FastObjective
from difftori_gym.trajopt.sampling import refit_to_elites
from difftori_gym.trajopt.settings import Settings
from difftori_gym.trajopt.solution import SampledSolution


def solve(
    objective: FastObjective,
    actions: Tensor,
    settings: Settings,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> SampledSolution:
    """
    Refit a Gaussian to the mean and spread of its elites, see :func:`~difftori_gym.trajopt.sampling.refit_to_elites`.

    :param objective: ``[B, H, A]`` -> ``[B]``; called under ``torch.vmap`` over the samples
    :param actions: initial mean ``[B, H, A]``
    :param settings: uses ``max_iterations, num_samples, num_elites, momentum, min_std, max_std``
    :param candidates: sequences ``[N, B, H, A]`` that compete beside the draws in every iteration
    :param generator: source of randomness; the global one if None
    :return: ``best_actions`` is the best sequence seen, ``actions`` one elite of the last iteration, each as likely as
        the others, ``mean`` what planners in the literature execute
    """
    return refit_to_elites(objective, actions, settings, candidates, generator, equal_weights)


def equal_weights(elite_values: Tensor, settings: Settings) -> Tensor:
    """
    :param elite_values: values of the elites ``[E, B]``, ``-inf`` where broken
    :param settings: not used
    :return: weights ``[E, B]``, equal over the elites that are not broken
    """
    counts = torch.isfinite(elite_values).to(elite_values.dtype)
    return counts / counts.sum(0)
