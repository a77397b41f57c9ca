"""What the readers share: spaces of files that do not hold them, the choice of episodes, errors that name them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from difftori_gym.il.episode import ACTION_TOLERANCE, Episode
from difftori_gym.il.formats.hdf5 import Group
from difftori_gym.observations import ArrayObs, entries, space_from_entries, under


def infer_space(observations: ArrayObs, where: str, remedy: str = "") -> spaces.Space:
    """
    A ``Box`` without bounds, [0, 255] for bytes, of an episode's observations ``[T + 1, ...]``; or a ``Dict`` of such.

    :raises ValueError: if they are no numbers, with ``remedy``
    """
    found = {}
    for key, value in entries(observations).items():
        if value.dtype.kind not in "fiu":
            raise ValueError(
                f"{where}: expected observations{under(key)} of numbers, got {value.dtype}. {remedy}".strip()
            )
        found[key] = _box(value)
    return space_from_entries(found)


def _box(value: np.ndarray) -> spaces.Box:
    kind = value.dtype
    if kind.kind == "f":
        return spaces.Box(-np.inf, np.inf, value.shape[1:], kind.type)
    limits = np.iinfo(kind)
    return spaces.Box(limits.min, limits.max, value.shape[1:], kind.type)


def infer_action_space(episodes: Sequence[Episode], where: str, reader: str) -> spaces.Box:
    """The box [-1, 1]; a ``ValueError`` that names the episode and ``reader`` if an action is outside."""
    for index, episode in enumerate(episodes):
        outside = episode.actions[np.abs(episode.actions) > 1 + 2 * ACTION_TOLERANCE]
        if outside.size:
            raise ValueError(
                f"{where}, {episode.label(index)}: expected actions in [-1, 1], got {outside[0]}: the file does not "
                f"tell their bounds. Pass action_space to {reader}, that of the environment they were recorded in."
            )
    return spaces.Box(-1.0, 1.0, episodes[0].actions.shape[1:], np.float32)


def as_vectors(value: np.ndarray) -> np.ndarray:
    """Observations of one key, numbers for truth values, with at least one axis beside time."""
    value = value.astype(np.float32) if value.dtype == bool else value
    return value[:, None] if value.ndim == 1 else value


def leaves(group: Group, prefix: str = "") -> Iterator[str]:
    """Names of the datasets in a group, at any depth, such as ``agent/qpos``."""
    for key in group:
        if hasattr(group[key], "shape"):
            yield prefix + key
        else:
            yield from leaves(group[key], f"{prefix}{key}/")


def choose(names: Sequence[str], num_episodes: int | None, leave_out: Collection[str], where: str) -> list[str]:
    """
    Of all episodes ``names`` in a file those to read, at least one: the first ``num_episodes`` (None: all) that remain.

    :raises ValueError: if there are fewer, or one to leave out is not there
    """
    unknown = [name for name in leave_out if name not in names]
    if unknown:
        raise ValueError(f"{where}: expected names of its episodes in leave_out, such as {names[:1]}, got {unknown}.")
    if num_episodes is not None and num_episodes < 1:
        raise ValueError(f"{where}: expected num_episodes >= 1, or None for all, got {num_episodes}.")
    kept = [name for name in names if name not in leave_out]
    if not kept:
        raise ValueError(f"{where}: expected at least one episode, got none.")
    if num_episodes is not None and len(kept) < num_episodes:
        raise ValueError(f"{where}: expected at least {num_episodes} episodes, got {len(kept)}. Ask for fewer.")
    return kept[:num_episodes]


def read_description(path: Path, what: str) -> dict[str, Any]:
    """An object of JSON, with or without a byte-order mark; a ``ValueError`` about ``what`` it ought to hold."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:  # ValueError: neither JSON nor text
        raise ValueError(f"{path}: expected {what} in JSON, got none that can be read ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected {what} as a JSON object, got {type(found).__name__}.")
    return found


@contextlib.contextmanager
def naming(where: str, name: str, reader: str) -> Iterator[None]:
    """
    Put file and episode before a ``ValueError``'s text, where they do not stand yet, and how to read the others after
    it.
    """
    try:
        yield
    except ValueError as error:
        text = str(error) if str(error).startswith(where) else f"{where}: {error}"
        raise ValueError(f"{text} {reader}(..., leave_out=[{name!r}]) reads the others.") from error
