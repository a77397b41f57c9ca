"""Present any numeric observation as one flat float32 vector."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.core import ActType
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]

_FLAT_SPACES = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)


def _check_flat(space: spaces.Space[Any], key: str) -> None:
    """Refuse spaces that are no vector of numbers; containers are looked at entry by entry."""
    if isinstance(space, spaces.Dict | spaces.Tuple):
        entries = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for name, entry in entries:
            _check_flat(entry, f"{key}[{name!r}]")
        return
    if not isinstance(space, _FLAT_SPACES):
        raise ValueError(
            f"StateObservation needs numeric observations (Box, Discrete, MultiBinary, MultiDiscrete, or Dict and "
            f"Tuple of them), got {type(space).__name__} at {key}. Choose a task with a state observation."
        )
    if isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) >= 2:
        raise ValueError(
            f"StateObservation needs a state vector, got an image of shape {space.shape} at {key}. "
            f"Choose a task with a state observation."
        )


class StateObservation(gym.ObservationWrapper[Float32Array, ActType, Any], RecordConstructorArgs):
    """
    Flatten the observation, scalars of shape ``()`` included, to a float32 vector ``[N]``.

    Dict and Tuple entries are concatenated in the order of the space, discrete entries are one-hot encoded.

    :param env: environment with a numeric observation
    :raises ValueError: if the observation holds images, text, graphs or sequences
    """

    def __init__(self, env: gym.Env[Any, ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        _check_flat(env.observation_space, "observation")
        flat = spaces.flatten_space(env.observation_space)
        assert isinstance(flat, spaces.Box)
        self.observation_space = spaces.Box(
            low=flat.low.astype(np.float32), high=flat.high.astype(np.float32), dtype=np.float32
        )

    def observation(self, observation: Any) -> Float32Array:
        """:return: vector ``[N]``"""
        flat = spaces.flatten(self.env.observation_space, observation)
        return np.asarray(flat, dtype=np.float32)
