"""
Cross-entropy method: a Gaussian over action sequences, refitted to its elites, all of which count the same.

Source: Rubinstein and Kroese, The Cross-Entropy Method (2004); as a planner in a learned model: PETS (Chua et al. 2018,
arXiv 1805.12114) and PlaNet (Hafner et al. 2019, arXiv 1811.04551).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from difftori_gym.trajopt.sampling import refit_to_elites
from difftori_gym.trajopt.settings import Settings


def equal_weights(elite_values: Tensor, settings: Settings) -> Tensor:
    """Weights ``[E, B]``, equal over the elites that are not broken."""
    counts = torch.isfinite(elite_values).to(elite_values.dtype)
    return counts / counts.sum(0)


solve = partial(refit_to_elites, weighting=equal_weights)
"""Its ``mean`` is what planners in the literature execute."""
