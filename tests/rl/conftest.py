"""Environments and small learners for the tests of reinforcement learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym import DiffTORI
from difftori_gym.baselines import TDMPC


class CounterEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    Observations ``(environment, episode, step)`` and rewards that encode them, so that any mix-up shows.

    :param index: number of this environment
    :param lengths: lengths of the episodes, in turn
    :param terminates: whether an episode ends by termination, in turn; otherwise by truncation
    """

    def __init__(self, index: int = 0, lengths: tuple[int, ...] = (5,), terminates: tuple[bool, ...] = (False,)):
        self.observation_space = spaces.Box(-1e6, 1e6, (3,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.index, self.lengths, self.terminates = index, lengths, terminates
        self.episode, self.t = -1, 0

    def length(self, episode: int) -> int:
        return self.lengths[episode % len(self.lengths)]

    def ends_by_termination(self, episode: int) -> bool:
        return self.terminates[episode % len(self.terminates)]

    def observe(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.t], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(self.reward_of(self.index, self.episode, self.t))
        self.t += 1
        ended = self.t >= self.length(self.episode)
        by_termination = self.ends_by_termination(self.episode)
        return self.observe(), reward, ended and by_termination, ended and not by_termination, {}

    @staticmethod
    def reward_of(index: Any, episode: Any, t: Any) -> Any:
        return 10_000 * index + 100 * episode + t


class PointEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    A point on a line that a velocity moves; the reward is highest at the origin. Random behaviour gets about -6.

    :param kind: ``"array"``, ``"dict"`` observations with one vector, or ``"image"``
    :param action_shape: all components are averaged
    :param dtype: of observations and actions
    :param fall: positions beyond it terminate the episode
    :param steps: time limit
    """

    def __init__(
        self,
        kind: str = "array",
        action_shape: tuple[int, ...] = (1,),
        dtype: type = np.float32,
        fall: float = np.inf,
        steps: int = 10,
    ) -> None:
        vector = spaces.Box(-5.0, 5.0, (2,), dtype)
        image = spaces.Box(0, 255, (1, 36, 36), np.uint8)
        self.observation_space = {"array": vector, "dict": spaces.Dict(vec=vector), "image": image}[kind]
        self.action_space = spaces.Box(-2.0, 1.0, action_shape, dtype)
        self.kind, self.dtype, self.fall, self.steps = kind, dtype, fall, steps

    def observe(self) -> Any:
        if self.kind == "image":
            image = np.zeros((1, 36, 36), np.uint8)
            column = int(np.clip(18 + 9 * self.x, 0, 33))
            image[:, :, column : column + 3] = 255
            return image
        vector = np.array([self.x, self.t / self.steps], self.dtype)
        return {"vec": vector} if self.kind == "dict" else vector

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.uniform(-1.5, 1.5)), 0
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        centred = (np.mean(action) + 0.5) / 1.5  # the action space is not symmetric on purpose
        self.x = float(np.clip(self.x + 0.5 * centred, -4.0, 4.0))
        self.t += 1
        fell = abs(self.x) > self.fall
        return self.observe(), -abs(self.x), fell, self.t >= self.steps and not fell, {}


@dataclass
class Learner:
    """An algorithm with settings that make it quick."""

    cls: type[DiffTORI]
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self, env: Any, policy: str = "MlpPolicy", **settings: Any) -> DiffTORI:
        small: dict[str, Any] = dict(
            learning_starts=8, batch_size=8, horizon=3, schedule_steps=60, device="cpu", seed=0
        )
        small["policy_kwargs"] = dict(net_arch=[16], latent_dim=6)
        planner = {**self.settings.get("planner_kwargs", {}), **settings.pop("planner_kwargs", {})}
        return self.cls(policy, env, **{**small, **self.settings, **settings, "planner_kwargs": planner})


DIFFTORI = Learner(DiffTORI, dict(planner_kwargs=dict(max_iterations=2), pg_freq=2, pg_batch_size=4))
LEARNERS = {
    "difftori": DIFFTORI,
    "warm": Learner(DiffTORI, {**DIFFTORI.settings, "planner_kwargs": dict(max_iterations=2, init="warm")}),
    "tdmpc": Learner(
        TDMPC, dict(planner_kwargs=dict(max_iterations=2, num_samples=24, num_elites=4, mixture_coef=0.2))
    ),
}


@pytest.fixture(params=list(LEARNERS))
def learner(request: pytest.FixtureRequest) -> Learner:
    """Each of the algorithms in turn."""
    return LEARNERS[request.param]


@pytest.fixture
def difftori() -> Learner:
    return DIFFTORI


@pytest.fixture
def counter_env() -> type[CounterEnv]:
    return CounterEnv


@pytest.fixture
def point_env() -> type[PointEnv]:
    return PointEnv


@pytest.fixture
def several() -> Callable[..., DummyVecEnv]:
    """Builds a vectorised environment of ``n`` point environments."""

    def build(n: int = 2, **settings: Any) -> DummyVecEnv:
        return DummyVecEnv([lambda: PointEnv(**settings) for _ in range(n)])

    return build


@pytest.fixture
def weights() -> Callable[[DiffTORI], dict[str, torch.Tensor]]:
    """Copies all weights of a model."""
    return lambda model: {name: value.clone() for name, value in model.policy.state_dict().items()}


@pytest.fixture
def differing() -> Callable[[dict[str, torch.Tensor], dict[str, torch.Tensor]], list[str]]:
    """Names of the weights that differ between two such copies."""

    def names(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
        assert first.keys() == second.keys()
        return [name for name in first if not torch.equal(first[name], second[name])]

    return names
