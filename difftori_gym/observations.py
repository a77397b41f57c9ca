"""Observations are arrays or dictionaries of arrays: what is done to either is written here, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from gymnasium import spaces
from torch import Tensor

TensorObs = Tensor | dict[str, Tensor]
ArrayObs = np.ndarray | dict[str, np.ndarray]

T = TypeVar("T")


def entries(observation: Any) -> dict[Any, Any]:
    """
    :param observation: an array, a tensor or a space, or a dictionary of such
    :return: its entries by key; the key of a lone one is None
    """
    if isinstance(observation, spaces.Dict):
        return dict(observation.spaces)
    return dict(observation) if isinstance(observation, dict) else {None: observation}


def from_entries(parts: Mapping[Any, T]) -> T | dict[str, T]:
    """:return: what :func:`entries` was given: the lone entry itself, or a dictionary"""
    return parts[None] if None in parts else dict(parts)


def space_from_entries(parts: Mapping[Any, spaces.Space[Any]]) -> spaces.Space[Any]:
    """:return: the lone space itself, or a ``Dict`` of the spaces that :func:`entries` returned"""
    return parts[None] if None in parts else spaces.Dict(dict(parts))


def map_obs(function: Callable[..., T], *observations: Any) -> T | dict[str, T]:
    """
    Apply a function to arrays, or to each entry of dictionaries.

    :param function: of as many arrays, tensors or spaces as there are observations
    :param observations: all alone, or all dictionaries with the same keys
    :return: what the function makes of them, alone or under the keys of the first, in its order
    :raises ValueError: if their keys differ
    """
    first, *others = map(entries, observations)
    for other in others:
        if other.keys() != first.keys():
            raise ValueError(
                f"Expected observations with the keys {list(first)}, got {list(other)}: None stands for an array "
                "without a key."
            )
    return from_entries({key: function(value, *(other[key] for other in others)) for key, value in first.items()})


def batch_size_of(observations: TensorObs | ArrayObs) -> int:
    """:return: B of observations ``[B, ...]`` or a dictionary of such"""
    return len(next(iter(entries(observations).values())))


def under(key: str | None) -> str:
    """:return: how an error message names the key of an observation, which may be None"""
    return "" if key is None else f" under key {key!r}"
