"""When an episode has succeeded: the one place that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
from gymnasium.core import ActType, ObsType
from gymnasium.utils import RecordConstructorArgs


def told_success(info: Mapping[str, Any]) -> bool | None:
    """
    What a step says of success: ``info["is_success"]``, or ``info["success"]`` where there is none.

    An episode has succeeded when any of its steps says so, also if later ones, or the last one, do not.

    :param info: of one step
    :return: whether the task is solved, None where the step does not tell
    """
    told = info.get("is_success", info.get("success"))
    return None if told is None else bool(told)


def latched_success(before: bool | None, info: Mapping[str, Any]) -> bool | None:
    """:return: whether the episode has succeeded now, given whether it had before; None if no step has told"""
    told = told_success(info)
    return before if told is None else bool(before) or told


class EpisodeSuccess(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    Let ``info["is_success"]`` tell of the episode and not of the step: true from its first success to its end.

    So Stable-Baselines3's ``EvalCallback`` and ``rollout/success_rate``, which read the last step of an episode, count
    as evaluation, films and demonstrations do.

    :param env: the environment to wrap; infos of one that does not tell success stay as they are
    """

    def __init__(self, env: gym.Env[ObsType, ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._success: bool | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsType, dict[str, Any]]:
        """Start an episode, which has not succeeded yet."""
        self._success = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """The info has ``is_success`` of the episode."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._success = latched_success(self._success, info)
        if self._success is not None:
            info = {**info, "is_success": self._success}
        return observation, reward, terminated, truncated, info
