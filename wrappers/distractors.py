"""Numbers beside the state that have nothing to do with the task."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.core import ActType
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]


class Distractors(gym.Wrapper[Float32Array, ActType, Float32Array, ActType], RecordConstructorArgs):
    """
    Append numbers to a state vector that neither tell of the task nor depend on actions.

    They have random numbers of their own, so that the environment inside is the same as without them.

    :param env: environment whose observation is a float32 vector ``[N]``
    :param noise: how many standard normal numbers, drawn anew in every step
    :param pendulums: how many of Gymnasium's pendulums, which uniformly random torques swing: three numbers each, the
        cosine and sine of its angle and its speed in radians a second; each step of the agent takes 0.05 s of it
    :raises ValueError: for numbers below 0, or another kind of observation
    """

    def __init__(self, env: gym.Env[Float32Array, ActType], noise: int = 0, pendulums: int = 0) -> None:
        RecordConstructorArgs.__init__(self, noise=noise, pendulums=pendulums)
        gym.Wrapper.__init__(self, env)
        if min(noise, pendulums) < 0:
            raise ValueError(f"Distractors needs noise >= 0 and pendulums >= 0, got {noise} and {pendulums}.")
        inside = env.observation_space
        if not isinstance(inside, spaces.Box) or len(inside.shape) != 1:
            raise ValueError(f"Distractors needs a state vector, got {inside}. Put it around StateObservation.")
        self.noise = noise
        self.pendulums: list[Any] = [PendulumEnv() for _ in range(pendulums)]
        limits = [np.full(noise, np.inf), *(pendulum.observation_space.high for pendulum in self.pendulums)]
        high = np.concatenate(limits).astype(np.float32)
        self.observation_space = spaces.Box(
            np.append(inside.low, -high), np.append(inside.high, high), dtype=np.float32
        )
        self._random = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start an episode; a seed is of the environment and of what is appended."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._random = np.random.default_rng(seed)
        swung = [pendulum.reset(seed=int(self._random.integers(2**31)))[0] for pendulum in self.pendulums]
        return self._joined(observation, swung), info

    def step(self, action: ActType) -> tuple[Float32Array, Any, bool, bool, dict[str, Any]]:
        """The observation has the appended numbers."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        swung = [
            pendulum.step(self._random.uniform(pendulum.action_space.low, pendulum.action_space.high))[0]
            for pendulum in self.pendulums
        ]
        return self._joined(observation, swung), reward, terminated, truncated, info

    def _joined(self, observation: Float32Array, swung: list[Float32Array]) -> Float32Array:
        return np.concatenate([observation, self._random.standard_normal(self.noise, dtype=np.float32), *swung])
