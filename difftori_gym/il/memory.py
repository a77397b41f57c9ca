"""What a chunking policy remembers between two calls of ``predict``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from difftori_gym.observations import ArrayObs, entries

PolicyState = tuple[np.ndarray, ...]
"""As Stable-Baselines3 hands it on: arrays whose first axis counts environments."""


@dataclass
class RolloutMemory:
    """
    One row per environment.

    :param history: the last observations ``[B, n_obs_steps, ...]``, oldest first, by sorted key; a single entry for
        observations that are no dictionary
    :param chunk: actions that were planned ``[B, n_action_steps, A]`` in [-1, 1]
    :param position: index of the next one to execute ``[B]``; ``n_action_steps`` when none is left
    :param noise: noise that the plan is a function of ``[B, noise_dim]``
    """

    history: tuple[np.ndarray, ...]
    chunk: np.ndarray
    position: np.ndarray
    noise: np.ndarray

    @classmethod
    def from_state(cls, state: PolicyState) -> RolloutMemory:
        """A memory of its own from what :meth:`to_state` returned, which stays as it is."""
        position, chunk, noise, *history = (np.array(each) for each in state)
        return cls(tuple(history), chunk, position, noise)

    @classmethod
    def empty(
        cls, observation: ArrayObs, n_obs_steps: int, n_action_steps: int, action_dim: int, noise_dim: int
    ) -> RolloutMemory:
        """A memory of first observations ``[B, ...]``, repeated, without a plan."""
        parts = split(observation)
        batch = len(parts[0])
        return cls(
            tuple(np.repeat(part[:, None], n_obs_steps, axis=1) for part in parts),
            np.zeros((batch, n_action_steps, action_dim), np.float32),
            np.full(batch, n_action_steps, np.int64),
            np.zeros((batch, noise_dim), np.float32),
        )

    def to_state(self) -> PolicyState:
        return (self.position, self.chunk, self.noise, *self.history)

    def observe(self, observation: ArrayObs, starts: np.ndarray) -> None:
        """Move the history on by one observation; where an episode ``starts``, mask ``[B]``, what was is forgotten."""
        for past, new in zip(self.history, split(observation), strict=True):
            past[:, :-1] = past[:, 1:]
            past[:, -1] = new
            past[starts] = new[starts, None]
        self.position[starts] = self.chunk.shape[1]

    def next_actions(self) -> np.ndarray:
        """The next action of every plan ``[B, A]``, which is thereby used up."""
        actions: np.ndarray = self.chunk[np.arange(len(self.position)), self.position]
        self.position += 1
        return actions


def split(observation: ArrayObs) -> tuple[np.ndarray, ...]:
    """The arrays, by sorted key."""
    parts = entries(observation)
    return tuple(parts[key] for key in sorted(parts))
