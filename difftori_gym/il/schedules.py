"""Learning rates as functions of the remaining progress, as Stable-Baselines3 takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineSchedule:
    """
    A linear rise, then half a cosine down.

    :param peak: greatest value
    :param final: value at the end
    :param warmup: share of the training in which it rises from zero, in [0, 1)
    """

    peak: float = 1e-4
    final: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise ValueError(f"CosineSchedule needs warmup in [0, 1), got {self.warmup!r}.")

    def __call__(self, progress_remaining: float) -> float:
        """The value, with ``progress_remaining`` from 1 at the start of the training to 0 at its end."""
        done = 1.0 - progress_remaining
        if done < self.warmup:
            return self.peak * done / self.warmup
        angle = math.pi * (done - self.warmup) / (1.0 - self.warmup)
        return self.final + 0.5 * (self.peak - self.final) * (1.0 + math.cos(angle))
