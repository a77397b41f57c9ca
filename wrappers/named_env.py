"""Faults of an environment, told with its name when they happen."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.core import ActType, ObsType


class NamedEnv(gym.Wrapper[ObsType, ActType, ObsType, ActType]):
    """
    Check what an environment returns, and name it in every error: among many, and in another process, nothing else
    tells which one failed.

    Refused are observations of another shape than the space's, and observations and rewards that are not finite.

    :param env: the environment
    :param name: what it is called in errors
    """

    def __init__(self, env: gym.Env[ObsType, ActType], name: str) -> None:
        super().__init__(env)
        self.name = name
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """
        :raises RuntimeError: if the environment raises, with the cause
        :raises ValueError: if the observation cannot be learned from
        """
        self._step = 0
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except Exception as error:
            raise RuntimeError(self._raised("reset", error)) from error
        self._check(observation)
        return observation, info

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """See :meth:`reset` for what is raised, here also for a reward that is not finite."""
        self._step += 1
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise RuntimeError(self._raised("step", error)) from error
        self._check(observation)
        if not np.isfinite(float(reward)):
            raise ValueError(
                f"Expected a finite reward, got {reward} from {self._place()}: repair the environment's reward or wrap "
                "it."
            )
        return observation, reward, terminated, truncated, info

    def _place(self) -> str:
        return f"{self.name} at step {self._step} of its episode"

    def _raised(self, method: str, error: Exception) -> str:
        return f"{method} of {self._place()} raised {type(error).__name__}: {error}"

    def _check(self, observation: Any) -> None:
        if isinstance(self.observation_space, spaces.Dict) and isinstance(observation, dict):
            for key, space in self.observation_space.spaces.items():
                if key not in observation:
                    raise ValueError(f"Expected an observation with the key {key!r}, got none from {self._place()}.")
                self._check_array(observation[key], space, f" under key {key!r}")
        else:
            self._check_array(observation, self.observation_space, "")

    def _check_array(self, value: Any, space: spaces.Space[Any], where: str) -> None:
        if not isinstance(space, spaces.Box):
            return
        array = np.asarray(value)
        if array.shape != space.shape:
            raise ValueError(
                f"Expected observations of shape {space.shape}, got {array.shape}{where} from {self._place()}: an "
                "environment must keep to its observation_space."
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(
                f"Expected finite observations, got {array[first]}{where} at position {first} from {self._place()}: "
                "repair the environment or wrap it."
            )
