"""From windows of demonstrations to batches on the device, with the base policy's answers beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from difftori_gym.il.demonstrations import Demonstrations
from difftori_gym.il.networks import TrainingBatch
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.il.windows import WindowBatch
from difftori_gym.learning.spaces import SeenSpaces, check_same_spaces, has_channels_last
from difftori_gym.models import shifted_images
from difftori_gym.observations import TensorObs, batch_size_of, map_obs

CACHE_BATCH = 256


class WindowDataset:
    """
    Random batches of the windows of demonstrations, with the answers of ``policy``'s base policy.

    These are computed once, when they are first needed, if ``cache_base_actions`` is set. A ``ValueError`` if the
    demonstrations were recorded in other spaces than the policy's.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        policy: ImitationPolicy,
        generator: np.random.Generator,
        cache_base_actions: bool,
    ) -> None:
        self._demonstrations, self._policy, self._generator = demonstrations, policy, generator
        self._transpose = map_obs(has_channels_last, demonstrations.observation_space)
        check_same_spaces(
            policy.observation_space,
            policy.action_space,
            SeenSpaces(demonstrations),
            what="demonstrations",
            whose="the environment",
        )
        self._windows = demonstrations.windows(
            n_obs_steps=policy.history_steps, horizon=policy.horizon, n_action_steps=policy.n_action_steps
        )
        self._cached, self._cache = cache_base_actions, None if policy.base is None else _NOTHING
        counts = np.array(list(map(len, demonstrations.episodes))) - (policy.horizon - policy.n_action_steps)
        self._first_window = np.repeat(np.cumsum(counts) - counts, counts)  # of the same episode, by window

    def __len__(self) -> int:
        return len(self._windows)

    def sample(self, batch_size: int) -> TrainingBatch:
        """Windows drawn with replacement, their images moved at random where the policy asks for that."""
        batch = self.batch(self._generator.integers(len(self), size=batch_size))
        if self._policy.image_shift == 0:
            return batch
        moved = shifted_images(batch.observations, self._policy.observation_space, self._policy.image_shift)
        return replace(batch, observations=moved)

    def batch(self, indices: np.ndarray) -> TrainingBatch:
        """The windows of these numbers ``[B]``, on the policy's device."""
        windows = self._windows.batch(indices)
        observations = self._observations(windows)
        all_actions = None
        if self._policy.network.trains_on_all:
            steps = np.arange(1 - self._policy.n_obs_steps, 1)
            # Padded as windows are.
            earlier = np.maximum(indices[:, None] + steps, self._first_window[indices][:, None])
            all_actions = self._actions(self._windows.batch(earlier.ravel())).unflatten(0, earlier.shape)
        base_actions = self._base_actions(indices, observations)
        return TrainingBatch(observations, self._actions(windows), base_actions, all_actions)

    def _observations(self, windows: WindowBatch) -> TensorObs:
        def seen(array: np.ndarray, transposed: bool) -> Tensor:
            return torch.as_tensor(np.moveaxis(array, -1, -3) if transposed else array, device=self._policy.device)

        return map_obs(seen, windows.observations, self._transpose)

    def _actions(self, windows: WindowBatch) -> Tensor:
        scaled = self._policy.scale_action(windows.actions.reshape(-1, *self._policy.action_space.shape))  # type: ignore[misc]
        flat = scaled.reshape(windows.actions.shape).astype(np.float32)
        return torch.as_tensor(flat, device=self._policy.device)

    def _base_actions(self, indices: np.ndarray, observations: TensorObs) -> Tensor | None:
        if self._cache is None:
            return None
        if not self._cached:
            return self._ask_base(observations)
        if self._cache is _NOTHING:
            parts = np.array_split(np.arange(len(self)), range(CACHE_BATCH, len(self), CACHE_BATCH))
            asked = [self._ask_base(self._observations(self._windows.batch(part))) for part in parts]
            self._cache = torch.cat(asked)
        return self._cache[torch.as_tensor(indices, device=self._cache.device)]

    @property
    def cached_base_actions(self) -> Tensor | None:
        """The base policy's answers, if they were computed once; they may have been drawn at random."""
        return None if self._cache is _NOTHING else self._cache

    @cached_base_actions.setter
    def cached_base_actions(self, answers: Tensor | None) -> None:
        if answers is not None:
            self._cache = answers.to(self._policy.device)

    def _ask_base(self, observations: TensorObs) -> Tensor:
        noise = self._policy.draw_noise(batch_size_of(observations), False)
        actions = self._policy.start(observations, noise, deterministic=False)
        assert actions is not None
        return actions


_NOTHING = torch.empty(0)
