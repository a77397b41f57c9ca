"""What happened in an episode, as a demonstration."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from difftori_gym.il import Episode
from difftori_gym.observations import map_obs
from difftori_gym.wrappers.success import latched_success, step_success


class EpisodeRecorder(gym.Wrapper[Any, Any, Any, Any]):
    """
    Remember the observations, actions and rewards of the running episode.

    Actions are clipped to the box before they are executed, and remembered so: an expert may ask for more than the
    environment does.

    :param env: environment with a ``Box`` of actions
    :raises ValueError: for other actions
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        if not isinstance(env.action_space, spaces.Box):
            raise ValueError(f"Demonstrations need continuous actions: expected a Box, got {env.action_space}.")
        self._box = env.action_space
        self._seed: int | None = None
        self._observations: list[Any] = []
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._successes: list[bool | None] = []
        self._terminated = self._truncated = False
        #: whether the task was solved in this episode; None when the environment does not tell
        self.success: bool | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Forget the last episode and start another."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._seed = seed
        self._observations, self._actions, self._rewards = [map_obs(np.array, observation)], [], []
        self._successes = []
        self._terminated = self._truncated = False
        self.success = None
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        Execute an action, clipped.

        :raises ValueError: if the action is not finite
        """
        action = np.asarray(action)
        if not np.isfinite(action).all():
            raise ValueError(
                f"seed {self._seed}, step {len(self._actions)}: expected finite actions from the expert, got {action}."
            )
        executed = np.clip(action, self._box.low, self._box.high).astype(self._box.dtype)
        observation, reward, terminated, truncated, info = self.env.step(executed)
        self._observations.append(map_obs(np.array, observation))  # which the environment will not write into
        self._actions.append(executed)
        self._rewards.append(float(reward))
        self._successes.append(step_success(info))
        self._terminated, self._truncated = bool(terminated), bool(truncated)
        self.success = latched_success(self.success, info)
        return observation, reward, terminated, truncated, info

    @property
    def num_steps(self) -> int:
        """Actions of the episode so far."""
        return len(self._actions)

    @property
    def ended(self) -> bool:
        """Whether the environment ended the episode."""
        return self._terminated or self._truncated

    def episode(self) -> Episode:
        """
        :return: the episode so far; cut, if the environment did not end it
        :raises ValueError: if nothing was done in it
        """
        return Episode(
            observations=map_obs(lambda *each: np.stack(each), *self._observations),
            actions=np.stack(self._actions) if self._actions else np.empty((0, *self._box.shape)),
            rewards=np.array(self._rewards),
            terminated=self._terminated,
            truncated=self._truncated or not self._terminated,
            success=self.success,
            seed=self._seed,
            successes=None if None in self._successes else np.array(self._successes, dtype=bool),
        )
