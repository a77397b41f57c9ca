"""Windows of demonstrations among those of the agent's own experience, and the loss that clones them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftori_gym.learning.transfers import uploaded
from difftori_gym.models import LatentModel
from difftori_gym.observations import map_obs
from difftori_gym.rl.sequence_buffer import SequenceBatch


@dataclass(frozen=True)
class DemonstratedBatch(SequenceBatch):
    """
    A batch of which some windows are of demonstrations; ``indices`` of these are ``-1 - i``, i in their own memory.

    :param demonstrated: 1 for a window of a demonstration, 0 for one of the agent's own ``[B]``
    """

    demonstrated: Tensor


def joined(own: SequenceBatch | None, shown: SequenceBatch) -> DemonstratedBatch:
    """
    :param own: windows of the agent's own experience, None for none
    :param shown: windows of demonstrations
    :return: both, spread evenly, so that any part of the batch has its share of either
    """
    flags = torch.ones_like(shown.weights)
    values: dict[str, Any] = {field.name: getattr(shown, field.name) for field in fields(SequenceBatch)}
    values["indices"] = -1 - shown.indices
    if own is None:
        return DemonstratedBatch(**values, demonstrated=flags)
    places = [(np.arange(len(part.indices)) + 0.5) / len(part.indices) for part in (own, shown)]
    order = np.argsort(np.concatenate(places), kind="stable")
    rows = uploaded(order, shown.weights.device)
    for name, value in values.items():
        if name == "indices":
            values[name] = np.concatenate([own.indices, value])[order]
        else:
            values[name] = map_obs(lambda *parts: torch.cat(parts)[rows], getattr(own, name), value)
    demonstrated = torch.cat([torch.zeros_like(own.weights), flags])[rows]
    return DemonstratedBatch(**values, demonstrated=demonstrated)


def cloning_loss(model: LatentModel, z: Tensor, batch: DemonstratedBatch, *, rho: float) -> Tensor:
    """
    Loss ``[]`` that brings the policy prior to the demonstrated actions, as MoDem begins (arXiv 2212.05698, Eq. 2).

    sum_t rho^t |pi(z_t) - a_t|^2, its mean over dimensions of the action, over those windows that are demonstrations.

    :param model: holds the policy prior
    :param z: latent states z_0 .. z_{h-1} of the windows ``[B, h, Z]``, h at most H
    :param batch: the windows
    :param rho: each further step counts this much less
    """
    steps = z.shape[1]
    error = (model.pi(z.flatten(0, 1)).unflatten(0, z.shape[:2]) - batch.actions[:, :steps]).square().mean(dim=-1)
    step_weight = rho ** torch.arange(steps, dtype=z.dtype, device=z.device)  # [h]
    return ((step_weight * batch.mask[:, :steps] * error).sum(dim=1) * batch.weights * batch.demonstrated).mean()
