"""Demonstrations as records that check themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from difftori_gym.il.windows import ArrayObs, DemonstrationWindows, WindowBatch

__all__ = ["ArrayObs", "DemonstrationWindows", "Demonstrations", "Episode", "WindowBatch"]

ACTION_TOLERANCE = 1e-5  # share of the box's width by which rounding to float32 may carry an action out of it
CHECKED_AT_ONCE = 256  # steps: large arrays may lie on the disk


@dataclass(frozen=True)
class Episode:
    """
    One demonstration of ``T`` actions. The observation after the last action closes it, as in Minari.

    :param observations: ``[T + 1, ...]`` or a dictionary of such
    :param actions: in the environment's units, ``[T, *action shape]``
    :param rewards: ``[T]``
    :param terminated: whether the environment ended the episode
    :param truncated: whether a time limit, or whoever collected it, ended the episode
    :param success: whether the task was solved; None when that is not known
    :param seed: seed of the reset it began with; None when that is not known
    :raises ValueError: if there is no action, or the lengths do not fit each other
    """

    observations: ArrayObs
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        length = len(self)
        if length < 1:
            raise ValueError("expected at least one action, got none: leave this episode out.")
        if self.rewards.shape != (length,):
            raise ValueError(
                f"expected rewards of shape ({length},) beside {length} actions, got {self.rewards.shape}."
            )
        if isinstance(self.observations, dict) and not self.observations:
            raise ValueError("expected observations, got an empty dictionary.")
        for key, value in items(self.observations):
            if len(value) != length + 1:
                raise ValueError(
                    f"expected {length + 1} observations{under(key)} beside {length} actions, the closing one counted, "
                    f"got {len(value)}."
                )

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Demonstrations:
    """
    Episodes of one task, checked against its spaces.

    :param episodes: at least one
    :param observation_space: a ``Box``, or a ``Dict`` of such
    :param action_space: a ``Box``
    :param env_id: the environment's name for ``make_env``, such as ``metaworld/sweep-into``, "" if not known
    :param obs: kind of observation for ``make_env``: ``state``, ``pixels`` or ``pointcloud``, "" if not known
    :param source: the file or place they are from, for error messages
    :raises ValueError: naming source and episode: if there is no episode; if keys, shapes or types of observations or
        actions do not fit the spaces; if a number is not finite; if an action lies outside the box
    """

    episodes: tuple[Episode, ...]
    observation_space: spaces.Space
    action_space: spaces.Box
    env_id: str = ""
    obs: str = ""
    source: str = "demonstrations"

    def __post_init__(self) -> None:
        check_spaces(self.observation_space, self.action_space, self.source)
        if not self.episodes:
            raise ValueError(f"{self.source}: expected at least one episode, got none.")
        for index, episode in enumerate(self.episodes):
            check_episode(episode, self.observation_space, self.action_space, f"{self.source}, episode {index}")

    def __len__(self) -> int:
        """:return: number of episodes"""
        return len(self.episodes)

    @property
    def num_steps(self) -> int:
        """Actions of all episodes together."""
        return sum(map(len, self.episodes))

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """Seed of each episode's reset: evaluation holds these out."""
        return tuple(episode.seed for episode in self.episodes)

    def take(self, count: int) -> Demonstrations:
        """
        :param count: number of episodes, in [1, ``len(self)``]
        :return: the first ``count`` episodes
        :raises ValueError: if there are fewer
        """
        if not 1 <= count <= len(self):
            raise ValueError(
                f"{self.source}: expected a number of episodes in [1, {len(self)}], got {count}. "
                "Ask for fewer or collect more."
            )
        return dataclasses.replace(self, episodes=self.episodes[:count])

    def windows(self, *, n_obs_steps: int, horizon: int, n_action_steps: int) -> DemonstrationWindows:
        """
        :param n_obs_steps: observations per window
        :param horizon: actions per window
        :param n_action_steps: how many of them are executed
        :return: all windows, see :class:`DemonstrationWindows`
        :raises ValueError: as there
        """
        return DemonstrationWindows(
            self.episodes, n_obs_steps=n_obs_steps, horizon=horizon, n_action_steps=n_action_steps, source=self.source
        )


def items(observations: ArrayObs) -> list[tuple[str | None, np.ndarray]]:
    """
    :param observations: an array or a dictionary of such
    :return: keys and arrays; the key of a lone array is None
    """
    return list(observations.items()) if isinstance(observations, dict) else [(None, observations)]


def under(key: str | None) -> str:
    """
    :param key: key of an observation, or None
    :return: how an error message names it
    """
    return "" if key is None else f" under key {key!r}"


def check_spaces(observation_space: spaces.Space, action_space: spaces.Space, source: str) -> None:
    """
    :param observation_space: of demonstrations
    :param action_space: of demonstrations
    :param source: for error messages
    :raises ValueError: unless observations are a ``Box`` or one level of ``Dict`` of such, and actions a ``Box``
    """
    if not isinstance(action_space, spaces.Box):
        raise ValueError(f"{source}: imitation learns continuous actions: expected a Box, got {action_space}.")
    entries = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    for space in entries:
        if not isinstance(space, spaces.Box):
            raise ValueError(
                f"{source}: expected observations from a Box or one level of Dict of Box, got {observation_space}: "
                "flatten them before they are stored."
            )


def check_episode(episode: Episode, observation_space: spaces.Space, action_space: spaces.Box, where: str) -> None:
    """
    :param episode: an episode
    :param observation_space: a ``Box`` or a ``Dict`` of such
    :param action_space: a ``Box``
    :param where: file and episode, for error messages
    :raises ValueError: as :class:`Demonstrations`
    """
    expected: list[tuple[str | None, spaces.Space]] = (
        list(observation_space.spaces.items())
        if isinstance(observation_space, spaces.Dict)
        else [(None, observation_space)]
    )
    found = dict(items(episode.observations))
    if set(found) != {key for key, _ in expected}:
        raise ValueError(
            f"{where}: expected observations with keys {[key for key, _ in expected]}, got {list(found)}. "
            "None stands for an array without a key."
        )
    for key, space in expected:
        assert isinstance(space, spaces.Box)
        _check_array(found[key], space, f"{where}: expected observations{under(key)}")
    _check_array(episode.actions, action_space, f"{where}: expected actions")
    if not np.isfinite(episode.rewards).all():
        raise ValueError(f"{where}: expected finite rewards, got {episode.rewards[~np.isfinite(episode.rewards)][0]}.")
    margin = ACTION_TOLERANCE * np.nan_to_num(action_space.high - action_space.low, posinf=0.0)
    outside = (episode.actions < action_space.low - margin) | (episode.actions > action_space.high + margin)
    if outside.any():
        first = tuple(np.argwhere(outside)[0])
        raise ValueError(
            f"{where}: expected actions inside the box [{action_space.low.min()}, {action_space.high.max()}], got "
            f"{episode.actions[first]} at step {first[0]}. Store the action that was executed, after clipping."
        )


def _check_array(value: np.ndarray, space: spaces.Box, expectation: str) -> None:
    """
    :param value: an episode's observations or actions, ``[length, ...]``
    :param space: space of one of them
    :param expectation: beginning of the error message
    :raises ValueError: if the shape or the kind of number is another, or a number is not finite
    """
    if value.shape[1:] != space.shape:
        raise ValueError(f"{expectation} of shape {space.shape}, got {value.shape[1:]}.")
    if not np.can_cast(value.dtype, space.dtype or np.float64, casting="same_kind"):
        raise ValueError(f"{expectation} of type {space.dtype}, got {value.dtype}.")
    if value.dtype.kind != "f":
        return
    for start in range(0, len(value), CHECKED_AT_ONCE):
        part = np.asarray(value[start : start + CHECKED_AT_ONCE])
        if not np.isfinite(part).all():
            first = tuple(np.argwhere(~np.isfinite(part))[0])
            raise ValueError(f"{expectation} that are finite, got {part[first]} at step {start + first[0]}.")
