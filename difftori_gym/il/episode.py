"""One demonstration, and how its arrays are read and checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from difftori_gym.observations import ArrayObs, entries, under

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
    :param name: what its file calls it, for error messages
    :param successes: whether the task was solved where each action led ``[T]``; None when that is not known
    :raises ValueError: if there is no action, or the lengths do not fit each other
    """

    observations: ArrayObs
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    success: bool | None = None
    seed: int | None = None
    name: str = ""
    successes: np.ndarray | None = None

    def __post_init__(self) -> None:
        length = len(self)
        if length < 1:
            raise ValueError("expected at least one action, got none: leave this episode out.")
        if self.rewards.shape != (length,):
            raise ValueError(
                f"expected rewards of shape ({length},) beside {length} actions, got {self.rewards.shape}."
            )
        if self.successes is not None and self.successes.shape != (length,):
            raise ValueError(
                f"expected successes of shape ({length},) beside {length} actions, got {self.successes.shape}."
            )
        found = entries(self.observations)
        if not found:
            raise ValueError("expected observations, got an empty dictionary.")
        for key, value in found.items():
            if len(value) != length + 1:
                raise ValueError(
                    f"expected {length + 1} observations{under(key)} beside {length} actions, the closing one counted, "
                    f"got {len(value)}."
                )

    def __len__(self) -> int:
        return len(self.actions)

    def label(self, index: int) -> str:
        """How an error message calls it, by its position among others if it has no name."""
        return self.name or f"episode {index}"


def check_layout(observations: ArrayObs, space: spaces.Space, where: str) -> None:
    """A ``ValueError`` that begins with ``where`` if keys, shapes or kinds of number ``[length, ...]`` are others."""
    expected, found = entries(space), entries(observations)
    if found.keys() != expected.keys():
        raise ValueError(
            f"{where}: expected observations with keys {list(expected)}, got {list(found)}. "
            "None stands for an array without a key."
        )
    for key, entry in expected.items():
        _check_array(found[key], entry, f"{where}: expected observations{under(key)}")


def check_episode(episode: Episode, observation_space: spaces.Space, action_space: spaces.Box, where: str) -> None:
    """A ``ValueError`` that begins with ``where``, as :class:`Demonstrations`."""
    check_layout(episode.observations, observation_space, where)
    for key, value in entries(episode.observations).items():
        _check_finite(value, f"{where}: expected observations{under(key)}")
    _check_array(episode.actions, action_space, f"{where}: expected actions")
    _check_finite(episode.actions, f"{where}: expected actions")
    if not np.isfinite(episode.rewards).all():
        raise ValueError(f"{where}: expected finite rewards, got {episode.rewards[~np.isfinite(episode.rewards)][0]}.")
    with np.errstate(over="ignore"):  # of bounds near the greatest float
        margin = ACTION_TOLERANCE * np.nan_to_num(action_space.high - action_space.low, posinf=0.0)
        outside = (episode.actions < action_space.low - margin) | (episode.actions > action_space.high + margin)
    if outside.any():
        first = tuple(np.argwhere(outside)[0])
        raise ValueError(
            f"{where}: expected actions inside the box [{action_space.low.min()}, {action_space.high.max()}], got "
            f"{episode.actions[first]} at step {first[0]}. Store the action that was executed, after clipping."
        )


def _check_array(value: np.ndarray, space: spaces.Space, expectation: str) -> None:
    if value.shape[1:] != space.shape:
        raise ValueError(f"{expectation} of shape {space.shape}, got {value.shape[1:]}.")
    if not np.can_cast(value.dtype, space.dtype or np.float64, casting="same_kind"):
        raise ValueError(f"{expectation} of type {space.dtype}, got {value.dtype}.")


def _check_finite(value: np.ndarray, expectation: str) -> None:
    if value.dtype.kind != "f":
        return
    for start in range(0, len(value), CHECKED_AT_ONCE):
        part = np.asarray(value[start : start + CHECKED_AT_ONCE])
        if not np.isfinite(part).all():
            first = tuple(np.argwhere(~np.isfinite(part))[0])
            raise ValueError(f"{expectation} that are finite, got {part[first]} at step {start + first[0]}.")
