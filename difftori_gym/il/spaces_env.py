"""A stand-in for the environment of a learner that was given demonstrations only."""

from __future__ import annotations

from typing import Any, NoReturn

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv


class SpacesEnv(gym.Env[Any, Any]):
    """Knows its spaces and cannot be run."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Any observation: Stable-Baselines3 resets the environment before it learns."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> NoReturn:
        raise ValueError("This model was given demonstrations and no environment: pass env= to run episodes.")


class SpacesVecEnv(DummyVecEnv):
    """One :class:`SpacesEnv`, as Stable-Baselines3's callbacks expect it."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__([lambda: SpacesEnv(observation_space, action_space)])
