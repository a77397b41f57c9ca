"""Spaces of files that do not hold them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
from gymnasium import spaces

from difftori_gym.il.episode import ACTION_TOLERANCE, ArrayObs


def infer_space(observations: ArrayObs) -> spaces.Space:
    """
    :param observations: of one episode, ``[T + 1, ...]`` or a dictionary of such
    :return: a ``Box`` of that shape without bounds, [0, 255] for bytes; or a ``Dict`` of such
    """
    if isinstance(observations, dict):
        return spaces.Dict({key: infer_space(value) for key, value in observations.items()})
    kind = observations.dtype
    if kind.kind == "f":
        return spaces.Box(-np.inf, np.inf, observations.shape[1:], kind.type)
    limits = np.iinfo(kind)
    return spaces.Box(limits.min, limits.max, observations.shape[1:], kind.type)


def infer_action_space(actions: Sequence[np.ndarray], where: str) -> spaces.Box:
    """
    :param actions: of all episodes, ``[T, A]`` each
    :param where: the file, for error messages
    :return: [-1, 1]
    :raises ValueError: if an action is outside, naming the episode
    """
    for index, each in enumerate(actions):
        outside = each[np.abs(each) > 1 + 2 * ACTION_TOLERANCE]
        if outside.size:
            raise ValueError(
                f"{where}, episode {index}: expected actions in [-1, 1], got {outside[0]}: the file does not "
                "tell their bounds. Pass action_space, that of the environment they were recorded in."
            )
    return spaces.Box(-1.0, 1.0, actions[0].shape[1:], np.float32)


@contextlib.contextmanager
def naming(where: str) -> Iterator[None]:
    """
    Put file and episode before an error's text, where they do not stand yet.

    :param where: file and episode
    :raises ValueError: in place of a ``ValueError`` inside
    """
    try:
        yield
    except ValueError as error:
        if str(error).startswith(where):
            raise
        raise ValueError(f"{where}: {error}") from error
