"""What changes with the number of agent steps, and noise that swings slowly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlanningSchedule:
    """
    Linear schedules of the planning horizon, which grows, and of the exploration noise, which falls.

    :param horizon_initial: planned steps at the start, at least 1
    :param horizon: planned steps at the end, at least 1
    :param exploration_initial_std: standard deviation of the noise at the start
    :param exploration_final_std: and at the end
    :param schedule_steps: agent steps from start to end; 0 for the end at once
    :raises ValueError: for a setting outside its range
    """

    horizon_initial: int
    horizon: int
    exploration_initial_std: float
    exploration_final_std: float
    schedule_steps: int

    def __post_init__(self) -> None:
        for name in ("horizon", "horizon_initial"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"Planning needs an integer {name} >= 1, got {value!r}.")
        for name in ("exploration_initial_std", "exploration_final_std", "schedule_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"The schedule needs {name} >= 0, got {getattr(self, name)!r}.")

    def at(self, num_timesteps: int) -> tuple[int, float]:
        """
        :param num_timesteps: agent steps so far
        :return: horizon and standard deviation there
        """
        progress = min(num_timesteps / self.schedule_steps, 1.0) if self.schedule_steps > 0 else 1.0
        horizon = self.horizon_initial + progress * (self.horizon - self.horizon_initial)
        return int(horizon), self.exploration_initial_std + progress * (
            self.exploration_final_std - self.exploration_initial_std
        )


class CorrelatedNoise:
    """
    First-order autoregressive Gaussian noise of unit variance, from numpy's global generator.

    :param correlation: between consecutive draws, in [0, 1)
    :raises ValueError: for a correlation outside that range
    """

    def __init__(self, correlation: float) -> None:
        if not 0 <= correlation < 1:
            raise ValueError(f"Noise needs 0 <= correlation < 1, got {correlation!r}.")
        self.correlation = correlation
        self._last: np.ndarray | None = None

    def __call__(self, shape: tuple[int, ...]) -> np.ndarray:
        """
        :param shape: of the draw; another one than last time starts anew
        :return: the next draw, float32
        """
        white = np.random.standard_normal(shape).astype(np.float32)
        if self._last is None or self._last.shape != shape:
            self._last = white
        else:
            self._last = self.correlation * self._last + float(np.sqrt(1.0 - self.correlation**2)) * white
        return self._last
