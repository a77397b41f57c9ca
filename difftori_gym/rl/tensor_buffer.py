"""A replay buffer of sequences whose data never leave the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from difftori_gym.learning.transfers import uploaded
from difftori_gym.observations import TensorObs, entries, map_obs
from difftori_gym.rl.sequence_buffer import SequenceSampling

Rows = np.ndarray | Tensor


class TensorStorage(ReplayBuffer):
    """
    ``ReplayBuffer`` of Stable-Baselines3, of the same arguments, with all but flags in tensors on the device.

    Whether an episode ended stays on the host: a byte per transition, by which windows are found. Array and
    dictionary observations are kept alike; float64 is kept as float32, as the networks take it.

    :raises ValueError: for ``optimize_memory_usage`` with ``handle_timeout_termination``
    """

    observations: Any
    next_observations: Any
    actions: Any
    rewards: Any

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if optimize_memory_usage and handle_timeout_termination:
            raise ValueError(
                "The replay buffer expects handle_timeout_termination=False with optimize_memory_usage=True, got True: "
                "pass replay_buffer_kwargs=dict(handle_timeout_termination=False)."
            )
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs)
        self.buffer_size = max(buffer_size // n_envs, 1)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.observations = map_obs(self._zeros, observation_space)
        self.next_observations = None if optimize_memory_usage else map_obs(self._zeros, observation_space)
        shape = (self.buffer_size, n_envs)
        self.actions = torch.zeros((*shape, self.action_dim), device=self.device)
        self.rewards = torch.zeros(shape, device=self.device)
        self.dones = np.zeros(shape, dtype=np.float32)
        self.timeouts = np.zeros(shape, dtype=np.float32)

    def _zeros(self, space: spaces.Space[Any]) -> Tensor:
        dtype = torch.from_numpy(np.zeros(0, dtype=space.dtype)).dtype
        dtype = torch.float32 if dtype == torch.float64 else dtype
        return torch.zeros((self.buffer_size, self.n_envs, *(space.shape or ())), dtype=dtype, device=self.device)

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: list[dict[str, Any]]) -> None:
        """
        Store one transition per environment: tensors or arrays ``[n_envs, ...]``, or a dictionary of such.

        :param next_obs: what the actions led to, the last ones of an episode where it ended
        :param done: whether the episode ended, on the host, ``[n_envs]``
        :param infos: with ``TimeLimit.truncated``
        """
        self.to(self.device)
        self._put(self.observations, self.pos, obs)
        if self.next_observations is None:
            self._put(self.observations, (self.pos + 1) % self.buffer_size, next_obs)
        else:
            self._put(self.next_observations, self.pos, next_obs)
        self._put(self.actions, self.pos, torch.as_tensor(action).reshape(self.n_envs, self.action_dim))
        self._put(self.rewards, self.pos, reward)
        self.dones[self.pos] = np.asarray(done)
        if self.handle_timeout_termination:
            self.timeouts[self.pos] = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full, self.pos = True, 0

    def _put(self, storage: TensorObs, row: int, values: Any) -> None:
        given = entries(values)
        for key, entry in entries(storage).items():
            entry[row] = torch.as_tensor(given[key], device=entry.device)

    def to(self, device: torch.device) -> None:
        """Move the data; Stable-Baselines3 sets :attr:`device` after loading."""
        if self.rewards.device.type == device.type and device.index in (None, self.rewards.device.index):
            return
        for name in ("observations", "next_observations", "actions", "rewards"):
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, map_obs(lambda entry: entry.to(device), value))

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> Any:
        """Single transitions, as Stable-Baselines3's own algorithms draw them."""
        self.to(self.device)
        columns = np.random.randint(0, self.n_envs, size=len(batch_inds))
        if self.next_observations is None:
            following, rows = self.observations, (batch_inds + 1) % self.buffer_size
        else:
            following, rows = self.next_observations, batch_inds
        kind = DictReplayBufferSamples if isinstance(self.observations, dict) else ReplayBufferSamples
        ended = self.dones[batch_inds, columns] * (1.0 - self.timeouts[batch_inds, columns])
        return kind(
            observations=self._pick(self.observations, batch_inds, columns),
            actions=self.actions[batch_inds, columns],
            next_observations=self._pick(following, rows, columns),
            dones=torch.as_tensor(ended, device=self.device).reshape(-1, 1),
            rewards=self.rewards[batch_inds, columns].reshape(-1, 1),
        )

    def _pick(self, storage: TensorObs, rows: Rows, columns: Rows) -> Any:
        return map_obs(lambda value: value[rows, columns], storage)


class TensorSequenceReplayBuffer(SequenceSampling, TensorStorage):
    """
    Prioritised replay of sequences with the data on the device.

    Windows, priorities and weights are those of the other sequence buffers, computed by the same code on the host:
    per update the indices of the windows go to the device and their new priorities come back, a few kilobytes.

    Takes the arguments of :class:`TensorStorage` and ``priority_exponent`` and ``importance_exponent``.
    """

    def sample_sequences(self, batch_size: int, horizon: int, env: VecNormalize | None = None) -> Any:
        """
        See :meth:`SequenceSampling.sample_sequences`.

        :raises ValueError: with a normaliser: what is normalised on the host cannot stay on the device
        """
        if env is not None:
            raise ValueError(
                "TensorSequenceReplayBuffer cannot normalise, got an environment in VecNormalize: expected none, or "
                "replay_buffer_class=SequenceReplayBuffer."
            )
        self.to(self.device)
        return super().sample_sequences(batch_size, horizon, None)

    def _at(self, storage: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
        # An index that came from the host by itself would be waited for.
        return storage[uploaded(rows, storage.device), uploaded(columns, storage.device)]

    def _tensor(self, array: Any) -> Tensor:
        return array if isinstance(array, Tensor) else super()._tensor(array)
