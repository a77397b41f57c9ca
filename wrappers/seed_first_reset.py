"""Give an environment a seed before its first reset."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.core import ActType, ObsType
from gymnasium.utils import RecordConstructorArgs


class SeedFirstReset(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    Use ``seed`` for the first reset; later resets without a seed continue the same random stream.

    A seed passed to :meth:`reset` itself takes the place of this one. The action space is seeded too.

    :param env: the environment to wrap
    :param seed: seed of the first reset, at least 0
    :raises ValueError: if ``seed`` is negative
    """

    def __init__(self, env: gym.Env[ObsType, ActType], seed: int) -> None:
        if seed < 0:
            raise ValueError(f"SeedFirstReset needs seed >= 0, got {seed}.")
        RecordConstructorArgs.__init__(self, seed=seed)
        gym.Wrapper.__init__(self, env)
        self._first_seed: int | None = seed
        self.action_space.seed(seed)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """
        Reset the environment.

        :param seed: seed of this reset, None for the first seed or for the running stream
        :param options: passed on
        :return: observation and info
        """
        if seed is None:
            seed = self._first_seed
        self._first_seed = None
        return self.env.reset(seed=seed, options=options)
