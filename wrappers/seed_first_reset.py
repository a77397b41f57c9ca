"""Give an environment a seed before its first reset."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import gymnasium as gym
from gymnasium.core import ActType, ObsType
from gymnasium.utils import RecordConstructorArgs


def checked_seed(seed: SupportsIndex | None, what: str = "Environments need") -> int | None:
    """
    :param what: how the message begins
    :return: the seed as Python's own number; numpy's are refused by Gymnasium
    :raises ValueError: if it is neither None nor a whole number of at least 0
    """
    if seed is None:
        return None
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise ValueError(f"{what} seed to be a whole number >= 0, or None, got {seed!r}.") from error
    if number < 0:
        raise ValueError(f"{what} seed >= 0, or None, got {seed}.")
    return number


class SeedFirstReset(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    Use ``seed`` for the first reset; later resets without a seed continue the same random stream.

    A seed passed to :meth:`reset` itself takes the place of this one. The action space is seeded too.

    :param env: the environment to wrap
    :param seed: seed of the first reset, at least 0
    :raises ValueError: if ``seed`` is negative
    """

    def __init__(self, env: gym.Env[ObsType, ActType], seed: int) -> None:
        first = checked_seed(seed, "SeedFirstReset needs")
        RecordConstructorArgs.__init__(self, seed=first)
        gym.Wrapper.__init__(self, env)
        self._first_seed = first
        self.action_space.seed(first)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Reset with a seed, or else with the first seed, or in the running stream."""
        if seed is None:
            seed = self._first_seed
        self._first_seed = None
        return self.env.reset(seed=seed, options=options)
