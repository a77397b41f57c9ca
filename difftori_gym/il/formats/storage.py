"""Observations laid one behind the other, in memory or on the disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from gymnasium import spaces

from difftori_gym.il.episode import Episode, check_layout
from difftori_gym.observations import entries, from_entries


class ObservationStorage:
    """
    Room for ``length`` observations of all episodes, the closing ones counted, one array per key.

    In a ``folder`` each array is an uncompressed ``.npy`` file that is read only where a batch needs it: images and
    clouds of any number of episodes cost no memory. Files that are there already are replaced; whoever reads the old
    ones keeps them. None keeps the arrays in memory.
    """

    def __init__(self, space: spaces.Space, length: int, folder: str | Path | None) -> None:
        self._space, self._filled = space, 0
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self._arrays: dict[str | None, np.ndarray] = {}
        for number, (key, entry) in enumerate(entries(space).items()):
            shape = (length, *(entry.shape or ()))
            if folder is None:
                self._arrays[key] = np.empty(shape, dtype=entry.dtype)
            else:
                path = Path(folder) / f"observations_{number}.npy"
                path.unlink(missing_ok=True)
                self._arrays[key] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
                    path, mode="w+", dtype=entry.dtype, shape=shape
                )

    def append(self, episode: Episode, where: str) -> Episode:
        """
        The same episode, its observations as parts of the storage.

        :raises ValueError: if keys, shapes or types of number are not those of the space, beginning with ``where``
        """
        check_layout(episode.observations, self._space, where)
        stored: dict[str | None, np.ndarray] = {}
        for key, value in entries(episode.observations).items():
            stored[key] = self._arrays[key][self._filled : self._filled + len(value)]
            stored[key][:] = value
        self._filled += len(episode) + 1
        return dataclasses.replace(episode, observations=from_entries(stored))
