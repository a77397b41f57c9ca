"""Short pieces of demonstrations, which imitation learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from difftori_gym.il.episode import Episode
from difftori_gym.il.validation import check_windows
from difftori_gym.observations import ArrayObs, map_obs


@dataclass(frozen=True)
class WindowBatch:
    """
    ``B`` windows in raw units.

    :param observations: the last ``n_obs_steps`` observations, oldest first, ``[B, n_obs_steps, ...]`` or a
        dictionary of such
    :param actions: flattened actions from the time of the last observation on, ``[B, horizon, A]``
    :param indices: the windows' numbers, ``[B]``
    """

    observations: ArrayObs
    actions: np.ndarray
    indices: np.ndarray


class DemonstrationWindows:
    """
    All windows of some episodes. A window never crosses an episode.

    The window of time ``t``, here with ``n_obs_steps=2``, ``horizon=4``, ``n_action_steps=3``::

        time             t-1    t   t+1   t+2   t+3
        observations      o     o
        actions                 a     a     a     a       the horizon
        executed                x     x     x             its first n_action_steps

    Diffusion Policy's horizon counts ``n_obs_steps - 1`` past actions more, which are never executed: its 16 with 2
    observations is 15 here.

    Padding is Diffusion Policy's: before the episode its first observation is repeated; after the episode its last
    action is repeated, but at most ``n_action_steps - 1`` times. So ``t`` runs from 0 to ``T - 1 - (horizon -
    n_action_steps)``, in an episode of ``T`` actions.

    Observations of all episodes are joined in one array, without a copy where they lie one behind the other in memory,
    as those of :mod:`difftori_gym.il.formats.storage` do on the disk.

    :param episodes: at least one
    :param n_obs_steps: observations per window, at least 1
    :param horizon: actions per window, at least 1 and at most the length of the shortest episode
    :param n_action_steps: actions that are executed, in [1, ``horizon``]
    :param source: where the episodes are from, for error messages
    :raises ValueError: if a number is out of its range, or an episode is shorter than the horizon
    """

    def __init__(
        self, episodes: Sequence[Episode], *, n_obs_steps: int, horizon: int, n_action_steps: int, source: str = ""
    ) -> None:
        check_windows(n_obs_steps, horizon, n_action_steps)
        lengths = np.array([len(episode.actions) for episode in episodes])
        if (lengths < horizon).any():
            first = int(np.argmax(lengths < horizon))
            raise ValueError(
                f"{source or 'demonstrations'}, {episodes[first].label(first)}: expected at least horizon={horizon} "
                f"actions, got {lengths[first]}. Choose a shorter horizon or leave this episode out."
            )
        self.n_obs_steps, self.horizon, self.n_action_steps = n_obs_steps, horizon, n_action_steps
        self._observations = map_obs(lambda *parts: join(parts), *(episode.observations for episode in episodes))
        self._actions = np.concatenate(
            [np.asarray(episode.actions, dtype=np.float32).reshape(len(episode.actions), -1) for episode in episodes]
        )
        counts = lengths - (horizon - n_action_steps)
        episode_of = np.repeat(np.arange(len(episodes)), counts)
        times = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        action_starts = np.cumsum(lengths) - lengths
        observation_starts = action_starts + np.arange(len(episodes))  # an episode has one observation more
        self._first_observation = observation_starts[episode_of]
        self._observation = self._first_observation + times
        self._action = action_starts[episode_of] + times
        self._last_action = (action_starts + lengths - 1)[episode_of]

    def __len__(self) -> int:
        return len(self._action)

    def batch(self, indices: np.ndarray) -> WindowBatch:
        """
        The windows of these numbers ``[B]``, in this order.

        :raises IndexError: if there is no window of that number
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"Expected window numbers in [0, {len(self)}), got {indices.min()} to {indices.max()}.")
        past = np.arange(1 - self.n_obs_steps, 1)
        observation_rows = np.maximum(self._observation[indices, None] + past, self._first_observation[indices, None])
        action_rows = np.minimum(
            self._action[indices, None] + np.arange(self.horizon), self._last_action[indices, None]
        )
        observations = map_obs(lambda value: np.asarray(value[observation_rows]), self._observations)
        return WindowBatch(observations, self._actions[action_rows], indices)

    def sample(self, batch_size: int, generator: np.random.Generator) -> WindowBatch:
        """Windows drawn uniformly, with replacement."""
        return self.batch(generator.integers(len(self), size=batch_size))


def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """
    Concatenate along axis 0, without a copy where the arrays are consecutive parts of one array.

    They are equal in all other axes; the result is ``[sum of lengths, ...]``.
    """
    first = arrays[0]
    if len(arrays) == 1:
        return first
    owner = _owner(first)
    address = first.__array_interface__["data"][0]
    for array in arrays:
        same_kind = array.dtype == first.dtype and array.shape[1:] == first.shape[1:]
        if not (same_kind and array.flags.c_contiguous and _owner(array) is owner and array.ctypes.data == address):
            return np.concatenate([np.asarray(each) for each in arrays])
        address += array.nbytes
    return np.lib.stride_tricks.as_strided(
        first, shape=(sum(map(len, arrays)), *first.shape[1:]), strides=first.strides, writeable=False
    )


def _owner(array: np.ndarray) -> object:
    """The object whose memory an array shows."""
    owner: object = array
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    return owner
