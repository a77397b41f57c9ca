"""
Model predictive path integral control as TD-MPC uses it: a Gaussian over action sequences, refitted to its elites.

Source: TD-MPC (Hansen et al. 2022, arXiv 2203.04955), algorithm 1 and released code.
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
    Refit a Gaussian to its elites, the better ones counting more.

    :param objective: ``[B, H, A]`` -> ``[B]``; called under ``torch.vmap`` over the samples
    :param actions: initial mean ``[B, H, A]``
    :param settings: uses ``max_iterations, num_samples, num_elites, temperature, momentum, min_std, max_std``
    :param candidates: sequences ``[N, B, H, A]`` that compete beside the draws in every iteration, e.g. rollouts of a
        policy prior; they count towards ``num_samples``
    :param generator: source of randomness; the global one if None
    :return: ``best_actions`` is the best sequence seen, ``actions`` one elite of the last iteration drawn in proportion
        to its weight (what TD-MPC executes while it explores); nothing is differentiable
    """
    return refit_to_elites(objective, actions, settings, candidates, generator, exponential_weights)


def exponential_weights(elite_values: Tensor, settings: Settings) -> Tensor:
    """
    :param elite_values: values of the elites ``[E, B]``, best first, ``-inf`` where broken
    :param settings: uses ``temperature``
    :return: weights ``[E, B]``, softmax of the values; nan where even the best is broken
    """
    advantage = elite_values - elite_values[0]  # at most 0, so that no temperature makes it overflow
    return torch.softmax(settings.temperature * advantage, dim=0)
