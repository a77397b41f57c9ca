"""Observations laid one behind the other, in memory or on the disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from gymnasium import spaces

from difftori_gym.il.episode import Episode
from difftori_gym.observations import entries, from_entries, under


class ObservationStorage:
    """
    Room for ``length`` observations of all episodes, the closing ones counted, one array per key.

    In a ``folder`` each array is an uncompressed ``.npy`` file that is read only where a batch needs it: images and
    clouds of any number of episodes cost no memory. Files that are there already are replaced; whoever reads the old
    ones keeps them. None keeps the arrays in memory.
    """

    def __init__(self, space: spaces.Space, length: int, folder: Path | None) -> None:
        self._filled = 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._arrays: dict[str | None, np.ndarray] = {}
        for number, (key, entry) in enumerate(entries(space).items()):
            shape = (length, *(entry.shape or ()))
            if folder is None:
                self._arrays[key] = np.empty(shape, dtype=entry.dtype)
            else:
                path = folder / f"observations_{number}.npy"
                path.unlink(missing_ok=True)
                self._arrays[key] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    path, mode="w+", dtype=entry.dtype, shape=shape
                )

    def append(self, episode: Episode, where: str) -> Episode:
        """
        The same episode, its observations as parts of the storage.

        :raises ValueError: if keys, shapes or types of number are not those of the space, beginning with ``where``
        """
        found = entries(episode.observations)
        if set(found) != set(self._arrays):
            raise ValueError(
                f"{where}: expected observations with keys {list(self._arrays)}, got {list(found)}. "
                "None stands for an array without a key."
            )
        stored: dict[str | None, np.ndarray] = {}
        for key, array in self._arrays.items():
            value = found[key]
            if value.shape[1:] != array.shape[1:] or not np.can_cast(value.dtype, array.dtype, casting="same_kind"):
                raise ValueError(
                    f"{where}: expected observations{under(key)} of shape "
                    f"{array.shape[1:]} and type {array.dtype}, got {value.shape[1:]} and {value.dtype}."
                )
            array[self._filled : self._filled + len(value)] = value
            stored[key] = array[self._filled : self._filled + len(value)]
        self._filled += len(next(iter(stored.values())))
        return dataclasses.replace(episode, observations=from_entries({key: stored[key] for key in found}))
