"""
Multimodal demonstrations: a point must pass an obstacle, and half of the demonstrations pass it on either side.

    python examples/two_modes.py --out results/two_modes

Trains DiffTORI, deterministic behaviour cloning and Diffusion Policy on the same demonstrations, prints which share of
rollouts takes which side and how many arrive, and draws rollouts and the learned objective for several latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from difftori_gym.baselines import BC, DiffusionPolicy
from difftori_gym.il import Demonstrations, DiffTORIImitation, Episode, ImitationAlgorithm

START, GOAL = np.array([0.0, -1.0]), np.array([0.0, 1.0])
RADIUS, REACHED, STEP, TIME_LIMIT = 0.4, 0.1, 0.1, 60
START_NOISE = 0.02


class TwoModes(gym.Env[np.ndarray, np.ndarray]):
    """A point at rest below a round obstacle, its goal above it. It observes its position and chooses its velocity."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = START + self.np_random.uniform(-START_NOISE, START_NOISE, 2)
        self.steps, self.side = 0, 0
        return self.position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + STEP * np.clip(action, -1.0, 1.0), -2.0, 2.0)
        self.steps += 1
        if self.side == 0 and self.position[1] > 0.0:
            self.side = 1 if self.position[0] > 0.0 else -1
        success = bool(np.linalg.norm(self.position - GOAL) < REACHED)
        hit = bool(np.linalg.norm(self.position) < RADIUS)
        info = {"is_success": success, "side": self.side, "hit": hit}
        return self.position.astype(np.float32), float(success), success or hit, self.steps >= TIME_LIMIT, info


def planned_velocity(position: np.ndarray, side: int) -> np.ndarray:
    """The scripted planner: past a point beside the obstacle, then to the goal, at most at speed 1."""
    target = np.array([0.7 * side, 0.1]) if position[1] < 0.0 else GOAL
    way = (target - position) / STEP
    return way / max(1.0, float(np.linalg.norm(way)))


def demonstrate(episodes: int, seed: int) -> Demonstrations:
    """Demonstrations of the planner, the sides in turn."""
    env, rng, recorded = TwoModes(), np.random.default_rng(seed), []
    for index in range(episodes):
        observation, _ = env.reset(seed=seed + index)
        observations, actions, rewards, done = [observation], [], [], False
        while not done:
            noise = 0.05 * rng.standard_normal(2)
            action = np.clip(planned_velocity(env.position, 1 if index % 2 else -1) + noise, -1, 1).astype(np.float32)
            observation, reward, terminated, truncated, info = env.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(reward)
            done = terminated or truncated
        assert info["is_success"], "the planner must arrive"
        recorded.append(
            Episode(
                np.array(observations), np.array(actions), np.array(rewards), terminated, truncated, True, seed + index
            )
        )
    return Demonstrations(tuple(recorded), env.observation_space, env.action_space, "two_modes")


@dataclass(frozen=True)
class Rollouts:
    """What a policy did: paths, the side each passed on (0: it did not pass), and whether it arrived."""

    paths: list[np.ndarray]
    sides: np.ndarray
    successes: np.ndarray

    def summary(self) -> str:
        left, right = (self.sides == -1).mean(), (self.sides == 1).mean()
        return f"left {left:4.0%}, right {right:4.0%}, success {self.successes.mean():4.0%}"


def roll_out(model: ImitationAlgorithm, episodes: int, seed: int, deterministic: bool) -> Rollouts:
    """All episodes side by side, from seeds that no demonstration used."""
    env = DummyVecEnv([TwoModes for _ in range(episodes)])
    env.seed(10_000 + seed)
    torch.manual_seed(seed)
    observation, state, start = env.reset(), None, np.ones(episodes, dtype=bool)
    paths: list[list[np.ndarray]] = [[point] for point in observation]
    sides, successes, running = np.zeros(episodes, int), np.zeros(episodes, bool), np.ones(episodes, bool)
    while running.any():
        action, state = model.predict(observation, state, start, deterministic)
        observation, _, start, infos = env.step(action)
        for index in np.flatnonzero(running):
            done = bool(start[index])
            paths[index].append(infos[index]["terminal_observation"] if done else observation[index])
            if done:
                sides[index] = 0 if infos[index]["hit"] else infos[index]["side"]
                successes[index], running[index] = infos[index]["is_success"], False
    return Rollouts([np.array(path) for path in paths], sides, successes)


def make_models(demonstrations: Demonstrations, seed: int) -> dict[str, ImitationAlgorithm]:
    """The methods with sizes that suit so small a task; window and seed are the same for all."""
    window: dict[str, Any] = dict(n_obs_steps=1, horizon=8, n_action_steps=4, seed=seed, device="cpu")
    small: dict[str, Any] = dict(policy_kwargs=dict(net_arch=[128, 128]), learning_rate=1e-3)
    return {
        "difftori": DiffTORIImitation(
            "MlpPolicy", None, demonstrations, init="zero", latent_dim=8, kl_coef=10.0, **window, **small
        ),
        "bc": BC("MlpPolicy", None, demonstrations, **window, **small),
        "diffusion": DiffusionPolicy(
            "MlpPolicy", None, demonstrations, size="small", batch_size=128, learning_rate=1e-3, **window
        ),
    }
