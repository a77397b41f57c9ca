"""Replay of short sequences, drawn by priority, for Stable-Baselines3's off-policy algorithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from difftori_gym.learning.transfers import uploaded
from difftori_gym.observations import TensorObs, map_obs
from difftori_gym.rl.frame_replay import FrameReplay
from difftori_gym.rl.sum_tree import SumTree


@dataclass(frozen=True)
class SequenceBatch:
    """
    ``B`` windows of ``H`` consecutive transitions. A window that meets the end of its episode is padded.

    :param observations: the windows' first observations, ``[B, ...]`` or a dictionary of such
    :param actions: ``[B, H, A]`` in [-1, 1]
    :param next_observations: observation after each action, ``[B, H, ...]`` or a dictionary of such
    :param rewards: ``[B, H]``
    :param terminated: 1 where the episode ended by termination, time limits excluded, ``[B, H]``
    :param mask: 1 for steps of the episode, 0 for padding, ``[B, H]``; the first column is all ones
    :param next_valid: ``mask`` without the steps whose next observation was not kept, ``[B, H]``
    :param weights: importance-sampling weights, at most 1, ``[B]``
    :param indices: where the windows start in the buffer, ``[B]``, for :meth:`update_priorities`
    """

    observations: TensorObs
    actions: Tensor
    next_observations: TensorObs
    rewards: Tensor
    terminated: Tensor
    mask: Tensor
    next_valid: Tensor
    weights: Tensor
    indices: np.ndarray[Any, np.dtype[np.int64]]


class SequenceSampling(ReplayBuffer):
    """
    Mixed in before a Stable-Baselines3 replay buffer of any kind, which it turns into one of prioritised sequences.

    Any stored transition may start a window. A window ends early, and is padded, at the end of an episode, at the
    newest transition, and where :meth:`end_episodes` cut it.

    :param priority_exponent: alpha, 0 draws uniformly
    :param importance_exponent: beta of the importance-sampling weights, 0 means weight 1
    """

    observations: Any
    next_observations: Any

    def __init__(self, *args: Any, priority_exponent: float = 0.6, importance_exponent: float = 0.4, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.priority_exponent = priority_exponent
        self.importance_exponent = importance_exponent
        self._forget()

    def _forget(self) -> None:
        self.ends = np.zeros((self.buffer_size, self.n_envs), dtype=bool)
        self.tree = SumTree(self.buffer_size * self.n_envs)
        self.max_priority = 1.0

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        self._forget()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """Store one transition per environment, see ``stable_baselines3.common.buffers.ReplayBuffer.add``."""
        pos = self.pos
        super().add(*args, **kwargs)
        self.ends[pos] = self.dones[pos] > 0
        slots = pos * self.n_envs + np.arange(self.n_envs)
        self.tree.set(slots, np.full(self.n_envs, self.max_priority))
        if self.optimize_memory_usage and self.full:
            # The slot about to be overwritten has lost its own observation already.
            self.tree.set(self.pos * self.n_envs + np.arange(self.n_envs), np.zeros(self.n_envs))

    def end_episodes(self) -> None:
        """Cut every running episode at its newest transition, because what comes next does not follow from it."""
        if self.pos > 0 or self.full:
            self.ends[self.pos - 1] = True
            if self.optimize_memory_usage:
                # Its next observation will be overwritten; Stable-Baselines3 calls such a step terminal, too.
                self.dones[self.pos - 1] = 1.0

    def sample_sequences(self, batch_size: int, horizon: int, env: VecNormalize | None = None) -> SequenceBatch:
        """
        Draw windows in proportion to priority ** alpha.

        :param batch_size: B
        :param horizon: H
        :param env: normalises observations and rewards, if given
        :return: the windows, on the buffer's device
        """
        indices, probabilities = self.tree.sample(batch_size)
        pos, env_index = np.divmod(indices, self.n_envs)
        steps = (pos[:, None] + np.arange(horizon)) % self.buffer_size  # [B, H]
        columns = env_index[:, None]
        mask = self._mask(pos, steps, columns)
        # Padding repeats the window's last step, so that it holds numbers of the right size.
        last = mask.sum(axis=1).astype(np.int64) - 1
        steps = np.take_along_axis(steps, np.minimum(np.arange(horizon), last[:, None]), axis=1)

        # When memory is saved, the observation after a step is the next row's, unless the episode ended between them.
        following = self.observations if self.optimize_memory_usage else self.next_observations
        following_rows = (steps + 1) % self.buffer_size if self.optimize_memory_usage else steps
        timeouts = self.timeouts[steps, columns]
        ends = self.ends[steps, columns]
        next_valid = mask * (1.0 - ends) if self.optimize_memory_usage else mask
        size = (self.buffer_size if self.full else self.pos) * self.n_envs
        weights = np.power(size * probabilities, -self.importance_exponent)
        return SequenceBatch(
            observations=self._gather(self.observations, pos, env_index, env),
            actions=self._tensor(self._at(self.actions, steps, columns)),
            next_observations=self._gather(following, following_rows, columns, env),
            rewards=self._tensor(self._normalize_reward(self._at(self.rewards, steps, columns), env)),
            terminated=self._tensor(self.dones[steps, columns] * (1.0 - timeouts)),
            mask=self._tensor(mask),
            next_valid=self._tensor(next_valid),
            weights=self._tensor(weights / weights.max()),
            indices=indices,
        )

    def update_priorities(self, indices: np.ndarray, priorities: np.ndarray) -> None:
        """
        :param indices: where the windows started, ``[B]``
        :param priorities: their new priorities, positive, ``[B]``; what is not finite counts as the greatest so far
        """
        alpha = self.priority_exponent if self.priority_exponent > 0 else 1.0
        priorities = np.where(np.isfinite(priorities), priorities, self.max_priority ** (1 / alpha))
        scaled = np.power(np.maximum(priorities, 1e-4), self.priority_exponent)
        self.max_priority = max(self.max_priority, float(scaled.max()))
        alive = self.tree.get(indices) > 0
        self.tree.set(indices[alive], scaled[alive])

    def _mask(self, pos: np.ndarray, steps: np.ndarray, columns: np.ndarray) -> np.ndarray:
        size = self.buffer_size if self.full else self.pos
        oldest = self.pos if self.full else 0
        age = (pos - oldest) % self.buffer_size  # how many stored transitions are older
        stored = age[:, None] + np.arange(steps.shape[1]) < size
        ended_before = np.cumsum(self.ends[steps, columns], axis=1) - self.ends[steps, columns]
        return (stored & (ended_before == 0)).astype(np.float32)

    def _at(self, storage: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
        """Entries of what is stored, in its own kind of array."""
        return storage[rows, columns]

    def _tensor(self, array: np.ndarray) -> Tensor:
        dtype = np.float32 if array.dtype == np.float64 else array.dtype
        return uploaded(array.astype(dtype, copy=False), self.device)

    def _gather(self, storage: Any, rows: np.ndarray, columns: np.ndarray, env: VecNormalize | None) -> TensorObs:
        picked: Any = map_obs(lambda value: self._at(value, rows, columns), storage)
        return map_obs(self._tensor, self._normalize_obs(picked, env))


class SequenceReplayBuffer(SequenceSampling, FrameReplay, ReplayBuffer):
    """
    Prioritised replay of sequences of array observations; of images, every frame is stored once.

    Takes the arguments of ``stable_baselines3.common.buffers.ReplayBuffer``, those of :class:`SequenceSampling`, and
    ``frame_stack`` of :class:`~difftori_gym.rl.frame_replay.FrameReplay`.
    """


class DictSequenceReplayBuffer(SequenceSampling, FrameReplay, DictReplayBuffer):
    """
    Prioritised replay of sequences of dictionary observations; of images, every frame is stored once.

    Takes the arguments of ``stable_baselines3.common.buffers.DictReplayBuffer``, of :class:`SequenceSampling`, and
    ``frame_stack`` of :class:`~difftori_gym.rl.frame_replay.FrameReplay`.
    """


def sequence_buffer_class(observation_space: spaces.Space[Any]) -> type[ReplayBuffer]:
    """:return: the buffer class that stores observations of this space"""
    return DictSequenceReplayBuffer if isinstance(observation_space, spaces.Dict) else SequenceReplayBuffer


def check_buffer_class(buffer_class: type) -> None:
    """:raises ValueError: unless a replay buffer of this class can be asked for windows"""
    if not issubclass(buffer_class, SequenceSampling):
        raise ValueError(
            "The model is trained on windows: expected a SequenceReplayBuffer, a DictSequenceReplayBuffer or a "
            f"subclass, got {buffer_class.__name__}. Leave replay_buffer_class out, or load a buffer that this "
            "algorithm has saved."
        )


def flatten_time(observations: TensorObs) -> TensorObs:
    """``[B, H, ...]`` -> ``[B * H, ...]``, for arrays and for each entry of a dictionary."""
    return map_obs(lambda value: torch.flatten(value, 0, 1), observations)
