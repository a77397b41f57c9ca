"""Where the agent itself is: what a robot knows without looking."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

#: Method of an environment that returns the agent's position as a vector ``[P]``.
AGENT_POSITION_METHOD = "agent_position"


def read_agent_position(env: gym.Env[Any, Any]) -> NDArray[np.float32]:
    """
    :param env: environment whose suite knows the agent's position
    :return: the agent's position ``[P]``
    """
    return np.asarray(env.get_wrapper_attr(AGENT_POSITION_METHOD)(), dtype=np.float32)


def agent_position_space(env: gym.Env[Any, Any], wanted_by: str) -> spaces.Box:
    """
    :param env: environment, wrapped in any number of wrappers
    :param wanted_by: name of the wrapper that asks, for the message
    :return: space of the agent's position
    :raises ValueError: if the environment does not know it
    """
    if not env.has_wrapper_attr(AGENT_POSITION_METHOD):
        raise ValueError(
            f"{wanted_by} needs an environment with a method {AGENT_POSITION_METHOD}(), got "
            f"{env.spec.id if env.spec else type(env.unwrapped).__name__}. Use make_env with a suite that offers it, "
            f"such as dm_control, metaworld or robosuite."
        )
    return spaces.Box(-np.inf, np.inf, read_agent_position(env).shape, np.float32)
