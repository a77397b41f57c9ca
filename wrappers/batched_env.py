"""What a suite that steps many environments in one call has to offer: everything is a batched tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

TensorObs = Tensor | dict[str, Tensor]


@dataclass(frozen=True)
class TensorStep:
    """
    One step of ``N`` environments; an environment whose episode ended has been reset already.

    :param observations: to act on next, ``[N, ...]`` or a dictionary of such
    :param rewards: ``[N]``, float32
    :param terminated: whether the episode ended by the task's own rules, ``[N]``, bool
    :param truncated: whether it was cut by a time limit, ``[N]``, bool
    :param final_observations: what the action led to. The same as ``observations`` where the episode goes on, the
        episode's last one where it ended.
    :param frames: environment frames that the step took, ``[N]``, int32
    :param success: whether the task is solved in this step, ``[N]``, bool; None where the suite does not tell
    """

    observations: TensorObs
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    final_observations: TensorObs
    frames: Tensor
    success: Tensor | None = None

    @property
    def dones(self) -> Tensor:
        """Whether the episode ended, ``[N]``, bool."""
        return self.terminated | self.truncated


class BatchedEnv(ABC):
    """
    ``N`` environments of one task, stepped together on one device.

    :param num_envs: N, at least 1
    :param observation_space: of one environment
    :param action_space: of one environment
    :param device: where observations, rewards and flags are
    :param render_mode: None or ``rgb_array``
    :param render_fps: agent steps per second of simulated time
    :raises ValueError: if ``num_envs`` is below 1
    """

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        *,
        device: torch.device | str,
        render_mode: str | None = None,
        render_fps: float = 30.0,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"{type(self).__name__} needs num_envs >= 1, got {num_envs}.")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"{type(self).__name__} needs render_mode None or 'rgb_array', got {render_mode!r}.")
        self.num_envs = num_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.device = torch.device(device)
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": render_fps}
        self.spec: gym.envs.registration.EnvSpec | None = None

    @abstractmethod
    def reset(self, seeds: Sequence[int | None]) -> TensorObs:
        """
        Start a new episode in every environment.

        :param seeds: one per environment; None continues its random stream
        :return: first observations ``[N, ...]`` or a dictionary of such
        """

    @abstractmethod
    def step(self, actions: Tensor) -> TensorStep:
        """
        Step every environment and reset those whose episode ended.

        :param actions: in the environment's units, inside its bounds, ``[N, A]``, float32, on :attr:`device`
        :return: the step, on :attr:`device`
        """

    def render(self) -> list[np.ndarray]:
        """:return: one image ``[height, width, 3]`` per environment"""
        raise NotImplementedError(f"{type(self).__name__} cannot draw.")

    def close(self) -> None:  # noqa: B027  (most suites hold nothing)
        """Free what the simulation holds."""


def map_obs(function: Any, *observations: Any) -> Any:
    """What a function of tensors or arrays makes of observations, or of each entry of dictionaries with equal keys."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: function(*(each[key] for each in observations)) for key in first}
    return function(*observations)
