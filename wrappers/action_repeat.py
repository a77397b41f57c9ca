"""Repeat each action for several environment frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.core import ActType, ObsType
from gymnasium.utils import RecordConstructorArgs

from .success import latched_success


class ActionRepeat(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    Apply every action ``num_repeats`` times and return the sum of the rewards.

    The repetition stops where the episode ends. ``info["frames"]`` of :meth:`step` is the number of
    environment frames that the step took, so that a caller can count frames exactly; the last step of an
    episode may take fewer than ``num_repeats``. ``info["is_success"]``, where any frame tells success, is true when
    one told that the task is solved.

    :param env: the environment to wrap
    :param num_repeats: environment frames per agent step, at least 1 (1 only adds ``info["frames"]``)
    :raises ValueError: if ``num_repeats`` is below 1
    """

    def __init__(self, env: gym.Env[ObsType, ActType], num_repeats: int) -> None:
        if num_repeats < 1:
            raise ValueError(f"ActionRepeat needs num_repeats >= 1, got {num_repeats}.")
        RecordConstructorArgs.__init__(self, num_repeats=num_repeats)
        gym.Wrapper.__init__(self, env)
        self.num_repeats = num_repeats
        # A film of agent steps that plays in real time has fewer frames per second than the environment.
        fps = env.metadata.get("render_fps")
        if fps is not None:
            self.metadata = {**env.metadata, "render_fps": fps / num_repeats}

    def step(self, action: ActType) -> tuple[ObsType, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step up to ``num_repeats`` times: summed reward, and the info of the last frame with ``frames``."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward_sum, success, frames = float(reward), latched_success(None, info), 1
        while frames < self.num_repeats and not (terminated or truncated):
            observation, reward, terminated, truncated, info = self.env.step(action)
            reward_sum += float(reward)
            success = latched_success(success, info)
            frames += 1
        info = {**info, "frames": frames}
        if success is not None:
            info["is_success"] = success
        return observation, reward_sum, terminated, truncated, info

    @property
    def planned_pixels(self) -> Callable[[Any], Any]:
        """
        Where the environment's picture would show what planned actions ``[H, A]`` lead to, each of them repeated.

        :raises AttributeError: if the environment does not tell
        """
        inner = self.env.get_wrapper_attr("planned_pixels")
        return lambda actions: inner(np.repeat(actions, self.num_repeats, axis=0))
