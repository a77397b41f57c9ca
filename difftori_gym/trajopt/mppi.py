"""
Model predictive path integral control as TD-MPC uses it: a Gaussian over action sequences, refitted to its elites.

Source: TD-MPC (Hansen et al. 2022, arXiv 2203.04955), algorithm 1 and released code.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from difftori_gym.trajopt.sampling import refit_to_elites
from difftori_gym.trajopt.settings import Settings


def exponential_weights(elite_values: Tensor, settings: Settings) -> Tensor:
    """Softmax ``[E, B]`` of the values by ``settings.temperature``; nan where even the best is broken."""
    advantage = elite_values - elite_values[0]  # at most 0, so that no temperature makes it overflow
    return torch.softmax(settings.temperature * advantage, dim=0)


solve = partial(refit_to_elites, weighting=exponential_weights)
"""Its ``actions`` are what TD-MPC executes while it explores."""
