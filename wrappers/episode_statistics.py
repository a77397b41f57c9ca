"""Return, length and success of running episodes, kept on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .batched_env import TensorStep


@dataclass(frozen=True)
class EpisodeTotals:
    """
    Episodes up to and including the last step, those that ended with it as well.

    :param returns: sums of rewards ``[N]``, float64
    :param lengths: agent steps ``[N]``, int64
    :param success: whether the task was solved in any step ``[N]``, bool; None where the suite does not tell
    """

    returns: Tensor
    lengths: Tensor
    success: Tensor | None


class EpisodeStatistics:
    """What ``Monitor`` of Stable-Baselines3 counts, for ``N`` environments at once and without leaving the device."""

    def __init__(self, num_envs: int, device: torch.device) -> None:
        self._returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._success = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def reset(self) -> None:
        """Forget all running episodes."""
        for total in (self._returns, self._lengths, self._success):
            total.zero_()

    def add(self, step: TensorStep) -> EpisodeTotals:
        """:return: totals of the episodes that the next step of every environment belongs to"""
        returns, lengths = self._returns + step.rewards, self._lengths + 1
        success = None if step.success is None else self._success | step.success
        running = ~step.dones
        # Not a product: a reward that is no number ends with its episode.
        self._returns, self._lengths = returns.where(running, 0.0), lengths * running
        if success is not None:
            self._success = success & running
        return EpisodeTotals(returns, lengths, success)
