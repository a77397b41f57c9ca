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


def step_success(info: Mapping[str, Any]) -> bool | None:
    """
    What a step says of itself: ``info["success"]``, or ``info["is_success"]`` where there is none.

    :param info: of one step; of an environment of ``make_env`` the second tells of the episode so far
    :return: whether the task is solved where the step led to, None where it does not tell
    """
    told = info.get("success", info.get("is_success"))
    return None if told is None else bool(told)


def latched_success(before: bool | None, info: Mapping[str, Any]) -> bool | None:
    """:return: whether the episode has succeeded now, given whether it had before; None if no step has told"""
    told = told_success(info)
    return before if told is None else bool(before) or told


class EpisodeSuccess(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    Let ``info["is_success"]`` tell of the episode and not of the step: true from its first success to its end. What the
    step itself said stays in ``info["success"]``.

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
            info = {"success": step_success(info), **info, "is_success": self._success}
        return observation, reward, terminated, truncated, info


class SuccessReward(gym.Wrapper[ObsType, ActType, ObsType, ActType], RecordConstructorArgs):
    """
    A sparse reward: 1 for every step that leads to where the task is solved, 0 for every other.

    The episode goes on, so that staying there pays. ``make_env(..., reward="success")`` puts it around the repeated
    action, so that a step of the agent is worth 1 at most.

    :param env: the environment to wrap
    """

    def __init__(self, env: gym.Env[ObsType, ActType]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self.rewards_success_alone = True

    def step(self, action: ActType) -> tuple[ObsType, Any, bool, bool, dict[str, Any]]:
        """:raises ValueError: if the environment does not tell success"""
        observation, _, terminated, truncated, info = self.env.step(action)
        success = step_success(info)
        if success is None:
            raise ValueError(
                f"SuccessReward expects an environment whose steps tell success, got {self.env.unwrapped}, which tells "
                f"{', '.join(info) or 'nothing'}: keep the environment's own reward."
            )
        return observation, float(success), terminated, truncated, info
