"""One environment of a suite that steps in batched tensors, as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from ..observations import TensorObs, entries, from_entries, map_obs
from .batched_env import BatchedEnv
from .host_copy import copy_to_host


class SingleEnv(gym.Env[Any, np.ndarray]):
    """
    A batch of one, without its axis of environments.

    ``info["frames"]`` of each step is the number of environment frames it took; ``info["is_success"]``, where the
    suite tells it, is true from the first solved step of the episode on.

    :param batch: one environment
    :raises ValueError: if there are more
    """

    def __init__(self, batch: BatchedEnv) -> None:
        if batch.num_envs != 1:
            raise ValueError(f"SingleEnv needs a batch of one environment, got {batch.num_envs}. Use TensorVecEnv.")
        self.batch = batch
        self.observation_space = batch.observation_space
        self.action_space = batch.action_space
        self.render_mode = batch.render_mode
        self.metadata = batch.metadata
        for name in ("action_repeat", "control_mode"):  # as learners ask a VecEnv for them
            if hasattr(batch, name):
                setattr(self, name, getattr(batch, name))
        self._success = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._success = False
        return self._host(self.batch.reset([seed])), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        step = self.batch.step(torch.as_tensor(np.asarray(action, np.float32)[None], device=self.batch.device))
        info: dict[str, Any] = {"frames": int(step.frames[0])}
        if step.success is not None:
            self._success = self._success or bool(step.success[0])
            info |= {"success": bool(step.success[0]), "is_success": self._success}
        observation = self._host(step.final_observations)
        return observation, float(step.rewards[0]), bool(step.terminated[0]), bool(step.truncated[0]), info

    def render(self) -> Any:
        """:return: image ``[height, width, 3]``, None without a render mode"""
        return None if self.render_mode is None else self.batch.render()[0]

    def close(self) -> None:
        self.batch.close()

    @staticmethod
    def _host(observations: TensorObs) -> Any:
        return map_obs(lambda value: value[0], from_entries(copy_to_host(entries(observations))))
