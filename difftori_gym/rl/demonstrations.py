"""Demonstrations as reinforcement learning sees them: checked against its environment, and laid into a replay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from difftori_gym.learning.spaces import SeenSpaces, check_same_spaces, has_channels_last
from difftori_gym.observations import ArrayObs, entries, map_obs, under
from difftori_gym.rl.sequence_buffer import SequenceSampling

Rewards = Literal["environment", "success"]

BOUND_TOLERANCE = 1e-3
"""Share of an observation's range by which rounding may carry it out of its space."""


class DemonstratedEpisode(Protocol):
    """What is asked of one demonstration of ``T`` actions; :class:`~difftori_gym.il.Episode` is such."""

    @property
    def observations(self) -> ArrayObs:
        """``[T + 1, ...]`` or a dictionary of such; the last one closes it."""

    @property
    def actions(self) -> np.ndarray:
        """In the environment's units, ``[T, *action shape]``."""

    @property
    def rewards(self) -> np.ndarray:
        """``[T]``"""

    @property
    def terminated(self) -> bool:
        """Whether the environment ended it; otherwise it was cut."""

    @property
    def success(self) -> bool | None:
        """Whether the task was solved; None when that is not known."""

    @property
    def successes(self) -> np.ndarray | None:
        """Whether it was solved where each action led ``[T]``; None when that is not known."""

    def __len__(self) -> int: ...

    def label(self, index: int) -> str:
        """How an error calls it."""


class DemonstrationSet(Protocol):
    """Demonstrations of one task; :class:`~difftori_gym.il.Demonstrations`, what every reader returns, is such."""

    @property
    def episodes(self) -> Sequence[DemonstratedEpisode]:
        """At least one."""

    @property
    def observation_space(self) -> spaces.Space[Any]:
        """A ``Box`` or a ``Dict`` of such."""

    @property
    def action_space(self) -> spaces.Box:
        """The box of the actions."""

    @property
    def source(self) -> str:
        """Where they are from, for errors."""

    @property
    def action_repeat(self) -> int | None:
        """Environment frames per action; None when that is not known."""

    @property
    def control_mode(self) -> str:
        """What the actions control; "" when that is not known."""


def told_by(env: VecEnv | None, *names: str) -> Any:
    """:return: the first of these attributes that the environments have, None for none"""
    if env is None:
        return None
    return next((env.get_attr(name, 0)[0] for name in names if env.has_attr(name)), None)


def check_demonstrations(
    demonstrations: DemonstrationSet,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    env: VecEnv | None,
) -> None:
    """
    :param demonstrations: to be learned from
    :param observation_space: of the learner, and its action space
    :param env: its environments, None if it has none
    :raises ValueError: if spaces, ranges of observations, action repeat, control mode or time limit differ, as far as
        both sides tell them, or observations are normalised by statistics that do not exist yet
    """
    source = demonstrations.source
    seen = SeenSpaces(demonstrations)
    check_same_spaces(observation_space, action_space, seen, what=source, whose="the environment")
    for index, episode in enumerate(demonstrations.episodes):
        _check_range(episode.observations, observation_space, f"{source}, {episode.label(index)}")
    repeat = told_by(env, "num_repeats", "action_repeat")
    if repeat is not None and demonstrations.action_repeat not in (None, repeat):
        raise ValueError(
            f"{source}: expected an action repeat of {repeat} as in the environment, got "
            f"{demonstrations.action_repeat}: collect them with it, or build the environment with the other."
        )
    mode = told_by(env, "control_mode")
    if mode and demonstrations.control_mode not in ("", mode):
        raise ValueError(
            f"{source}: expected the control mode {mode!r} of the environment, got {demonstrations.control_mode!r}: "
            f"build the environment with control_mode={demonstrations.control_mode!r}."
        )
    limit = _time_limit(env, repeat or 1)
    for index, episode in enumerate(demonstrations.episodes):
        if limit is not None and len(episode) > limit:
            raise ValueError(
                f"{source}, {episode.label(index)}: expected at most {limit} actions, the environment's time limit, "
                f"got {len(episode)}: build the environment with the limit and the action repeat of the recording."
            )
    _check_normalised(env, source)


def rewards_of(demonstrations: DemonstrationSet, kind: Rewards | None, env: VecEnv | None) -> list[np.ndarray]:
    """
    :param kind: None for success alone where the environment rewards that (``SuccessReward``), else its own
    :return: the rewards ``[T]`` of every episode
    :raises ValueError: if they are not known, or are not those of the environment
    """
    source, only_success = demonstrations.source, bool(told_by(env, "rewards_success_alone"))
    if kind is None:
        kind = "success" if only_success else "environment"
    if kind == "success":
        return [_successes(each, f"{source}, {each.label(i)}") for i, each in enumerate(demonstrations.episodes)]
    if kind != "environment":
        raise ValueError(f"learn_from expects rewards='environment' or 'success', got {kind!r}.")
    rewards = [np.asarray(each.rewards, dtype=np.float32) for each in demonstrations.episodes]
    found = np.concatenate(rewards)
    if not found.any():
        raise ValueError(
            f"{source}: expected rewards, got zeros alone: pass rewards='success', or demonstrations that hold them."
        )
    if only_success and not np.isin(found, (0.0, 1.0)).all():
        raise ValueError(
            f"{source}: expected rewards of 0 and 1 as in the environment, which rewards success alone, got "
            f"{found[~np.isin(found, (0.0, 1.0))][0]:g}: pass rewards='success'."
        )
    return rewards


def fill(
    memory: SequenceSampling, demonstrations: DemonstrationSet, actions: list[np.ndarray], rewards: list[np.ndarray]
) -> None:
    """
    Lay demonstrations into an empty replay of one environment that has room for all of them.

    :param actions: of every episode, scaled to [-1, 1], ``[T, *action shape]``
    :param rewards: of every episode ``[T]``
    """
    transposed = map_obs(has_channels_last, demonstrations.observation_space)
    for episode, scaled, earned in zip(demonstrations.episodes, actions, rewards, strict=True):
        seen = map_obs(
            lambda array, turned: np.moveaxis(array, -1, -3) if turned else array, episode.observations, transposed
        )
        last = len(episode) - 1
        for t in range(last + 1):
            now, following = (
                map_obs(lambda array, row=row: np.asarray(array[row : row + 1]), seen) for row in (t, t + 1)
            )
            cut = t == last and not episode.terminated
            infos: list[dict[str, Any]] = [{"TimeLimit.truncated": cut}]
            memory.add(now, following, scaled[t : t + 1], earned[t : t + 1], np.array([t == last]), infos)


def _successes(episode: DemonstratedEpisode, where: str) -> np.ndarray:
    if episode.successes is not None:
        return np.asarray(episode.successes, dtype=np.float32)
    if episode.success is False:
        return np.zeros(len(episode), dtype=np.float32)
    told = "nothing of success" if episode.success is None else "only that it was"
    raise ValueError(
        f"{where}: expected to be told at which steps the task was solved, got {told}: collect it again, or pass "
        "rewards='environment'."
    )


def _check_range(observations: ArrayObs, space: spaces.Space[Any], where: str) -> None:
    """Observations in other units, or normalised, mostly leave the box of the environment."""
    found = entries(observations)
    for key, entry in entries(space).items():
        if not isinstance(entry, spaces.Box) or np.dtype(entry.dtype).kind != "f":
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            margin = BOUND_TOLERANCE * np.nan_to_num(entry.high - entry.low, nan=0.0, posinf=0.0)
        array = np.asarray(found[key])
        outside = (array < entry.low - margin) | (array > entry.high + margin)
        if outside.any():
            first = tuple(np.argwhere(outside)[0])
            raise ValueError(
                f"{where}: expected observations{under(key)} inside the environment's [{entry.low[first[1:]]:g}, "
                f"{entry.high[first[1:]]:g}], got {array[first]:g} at step {first[0]}: give them as the environment "
                "shows them, neither normalised nor in other units."
            )


def _time_limit(env: VecEnv | None, repeat: int) -> int | None:
    """Agent steps of an episode at most, if the environments tell it."""
    frames = told_by(env, "max_episode_steps")
    if frames is None:
        frames = getattr(told_by(env, "spec"), "max_episode_steps", None)
    return None if frames is None else -(-int(frames) // repeat)


def _check_normalised(env: VecEnv | None, source: str) -> None:
    while env is not None:
        if isinstance(env, VecNormalize) and env.norm_obs:
            statistics = env.obs_rms.values() if isinstance(env.obs_rms, dict) else [env.obs_rms]
            if any(each.count < 1.0 for each in statistics):
                raise ValueError(
                    f"{source}: expected a VecNormalize that has seen observations, got one that has seen none, whose "
                    "scale would change under what is learned first: use policy_kwargs=dict(norm_obs=True), or "
                    "VecNormalize.load."
                )
        env = getattr(env, "venv", None)
