"""DiffTORI's reinforcement on MetaWorld with a reward that was learned from demonstrations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym import DiffTORI, DiffTORIImitation, make_env, make_vec_env
from difftori_gym.evaluation import evaluate
from difftori_gym.il import Demonstrations
from difftori_gym.models import mlp
from reward_questions.metaworld import demonstrations_of, imitate, network_of, scores, windows_of
from reward_questions.table import Row, Table

REPEAT = 2
ENV: dict[str, Any] = dict(action_repeat=REPEAT, max_episode_steps=200)
WINDOW: dict[str, Any] = dict(n_obs_steps=1, horizon=1, n_action_steps=1)
"""A reward is of one step: with a horizon of 1 the objective is f(o, a)."""
HELD_OUT = 10_000  # seed of the first evaluation episode
SIZES = [128, 128]
LEARNER: dict[str, Any] = dict(
    learning_starts=500,
    batch_size=128,
    horizon=3,
    schedule_steps=10_000,
    train_freq=2,
    policy_delay=2,
    exploration_kwargs=dict(initial_std=0.5, final_std=0.1),
    planner_kwargs=dict(backward_num_iterations=1),
    policy_kwargs=dict(net_arch=dict(pi=SIZES, qf=SIZES, dynamics=SIZES, reward=SIZES), norm_obs=True),
)
REWARDS = ("objective", "discriminator", "objective as it is", "environment")


@dataclass(frozen=True)
class ReinforcementSettings:
    """
    :param task: of MetaWorld
    :param rewards: of ``REWARDS``
    :param seeds: of all that is learned
    :param frames: environment frames of reinforcement, two per agent step
    :param eval_freq: frames between evaluations
    :param episodes: of an evaluation
    :param demos: demonstrations that rewards are learned from
    :param steps: gradient steps of imitation
    """

    task: str = "metaworld/drawer-open"
    rewards: tuple[str, ...] = REWARDS
    seeds: tuple[int, ...] = (0,)
    frames: int = 20_000
    eval_freq: int = 5000
    episodes: int = 10
    demos: int = 10
    steps: int = 1500


Score = Callable[[np.ndarray, np.ndarray], float]
"""Observation and action ``[A]`` in [-1, 1] -> reward."""


class LearnedReward(gym.Wrapper[Any, Any, Any, Any]):
    """
    Rewards an environment's steps with a score of observation and action.

    :param env: environment with actions in [-1, 1]
    :param score: None: the environment's own reward stays
    """

    def __init__(self, env: gym.Env[Any, Any], score: Score | None) -> None:
        super().__init__(env)
        self.score, self.total, self.steps = score, 0.0, 0
        self._seen: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._seen, info = self.env.reset(**kwargs)
        return self._seen, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if self.score is not None:
            reward = self.score(self._seen, np.asarray(action))
        self._seen = observation
        self.total, self.steps = self.total + float(reward), self.steps + 1
        return observation, reward, terminated, truncated, info

    def mean(self) -> float:
        """:return: mean reward per agent step since the last call, nan if there was none"""
        mean = self.total / self.steps if self.steps else float("nan")
        self.total, self.steps = 0.0, 0
        return mean


class ObjectiveReward:
    """
    The learned objective as a reward: its scale, which imitation does not determine, is that of random actions.

    :param model: with a horizon of 1
    :param demonstrations: that it has learned from
    :param offset_removed: f(o, a) - f(o, a*) with the plan a*, so that what depends on the state alone, which imitation
        does not determine either, is gone; else f(o, a) less its mean over the demonstrations
    """

    def __init__(self, model: DiffTORIImitation, demonstrations: Demonstrations, *, offset_removed: bool) -> None:
        self._model, self._removed = model, offset_removed
        batch = windows_of(model, demonstrations)
        assert isinstance(batch.observations, Tensor)
        random = 2.0 * torch.rand(batch.actions.shape, generator=torch.Generator().manual_seed(0)) - 1.0
        values = scores(network_of(model), batch.observations, self._plan(batch.observations))
        self._offset = values.mean().item()
        self._scale = (values - scores(network_of(model), batch.observations, random)).mean().abs().item()

    def __call__(self, observation: np.ndarray, action: np.ndarray) -> float:
        seen, taken = torch.as_tensor(observation)[None, None], torch.as_tensor(action).view(1, 1, -1)
        network = network_of(self._model)
        offset = scores(network, seen, self._plan(seen)).item() if self._removed else self._offset
        return (scores(network, seen, taken).item() - offset) / self._scale

    def _plan(self, observations: Tensor) -> Tensor:
        noise = self._model.policy.draw_noise(len(observations), True)
        return self._model.policy.chunk(observations, noise, True)


class Discriminator:
    """
    GAIL's reward (Ho and Ermon 2016, arXiv 1606.03476), ``-log(1 - D(o, a))``, of a discriminator that learns beside
    the agent, off policy and with a gradient penalty as in DAC (Kostrikov et al. 2019, arXiv 1809.02925).

    A reward stays what it was when the step was taken; DAC judges anew.

    :param demonstrations: of the expert
    :param normalize: of observations
    :param seed: of network and batches
    :param every: steps between updates
    """

    def __init__(self, demonstrations: Demonstrations, normalize: nn.Module, seed: int, every: int = 2) -> None:
        torch.manual_seed(seed)
        self._generator, self._every = np.random.default_rng(seed), every
        self._normalize = normalize
        self._expert = self._joined(
            np.concatenate([each.observations[:-1] for each in demonstrations.episodes]),
            np.concatenate([each.actions for each in demonstrations.episodes]),
        )
        self._agent: list[Tensor] = []
        self.network = mlp(self._expert.shape[1], SIZES, 1)
        self._optimizer = torch.optim.Adam(self.network.parameters(), 3e-4)

    def _joined(self, observations: np.ndarray, actions: np.ndarray) -> Tensor:
        seen = self._normalize(torch.as_tensor(observations)).clamp(-5.0, 5.0)
        return torch.cat([seen, torch.as_tensor(actions)], dim=1)

    def __call__(self, observation: np.ndarray, action: np.ndarray) -> float:
        pair = self._joined(observation[None], action[None])
        self._agent.append(pair[0])
        if len(self._agent) % self._every == 0:
            self.update()
        with torch.no_grad():
            return F.softplus(self.network(pair)).item()

    def update(self, batch_size: int = 128) -> float:
        """:return: loss of a batch, before the step on it"""
        expert = self._expert[self._generator.integers(len(self._expert), size=batch_size)]
        agent = torch.stack([self._agent[i] for i in self._generator.integers(len(self._agent), size=batch_size)])
        share = torch.as_tensor(self._generator.random((batch_size, 1)), dtype=torch.float32)
        between = (share * expert + (1.0 - share) * agent).requires_grad_()
        slope = torch.autograd.grad(self.network(between).sum(), between, create_graph=True)[0]
        loss = F.softplus(-self.network(expert)).mean() + F.softplus(self.network(agent)).mean()
        total = loss + 10.0 * (slope.norm(dim=1) - 1.0).square().mean()
        self._optimizer.zero_grad()
        total.backward()
        self._optimizer.step()
        return loss.item()


def score_of(reward: str, model: DiffTORIImitation, demonstrations: Demonstrations, seed: int) -> Score | None:
    """:return: the reward of this name, None for the environment's own"""
    if reward == "environment":
        return None
    if reward == "discriminator":
        return Discriminator(demonstrations, model.policy.network.encoder.normalizer, seed)
    return ObjectiveReward(model, demonstrations, offset_removed=reward == "objective")


def reinforce(settings: ReinforcementSettings, score: Score | None, seed: int) -> Iterator[Row]:
    """
    :param settings: of the run
    :param score: reward
    :param seed: of environment and learner
    :return: rows by frames, as they come
    """
    rewarded = LearnedReward(make_env(settings.task, seed=seed, **ENV), score)
    env = DummyVecEnv([lambda: Monitor(rewarded)])
    held_out = make_vec_env(settings.task, min(settings.episodes, 10), reward="success", **ENV)
    model = DiffTORI("MlpPolicy", env, seed=seed, device="cpu", **LEARNER)
    spent = 0.0
    for frames in range(settings.eval_freq, settings.frames + 1, settings.eval_freq):
        began = time.process_time()
        model.learn(frames // REPEAT - model.num_timesteps, log_interval=None, reset_num_timesteps=False)
        spent += time.process_time() - began
        found = evaluate(model, held_out, n_episodes=settings.episodes, seed=HELD_OUT)
        success = found.success_rate or 0.0
        yield {"frames": frames, "success": success, "earned": rewarded.mean(), "cpu_s": round(spent)}
    env.close()
    held_out.close()


def run(table: Table, settings: ReinforcementSettings, demos: Path) -> None:
    """
    :param table: of the rows
    :param settings: of the question
    :param demos: folder of data sets
    """
    for seed in settings.seeds:
        model = None
        folder = demos / f"{settings.task.replace('/', '_')}_repeat_{REPEAT}"
        for reward in ("clone", *settings.rewards):
            key: Row = {"task": settings.task, "reward": reward, "seed": seed}
            if table.of(**key, frames=0 if reward == "clone" else settings.frames):
                continue
            known, _ = demonstrations_of(settings.task, settings.demos, folder, 200 // REPEAT, 1, action_repeat=REPEAT)
            if model is None:
                model = imitate(known, "chunk", settings.steps, seed, **WINDOW)
            if reward == "clone":  # what imitation itself reaches, with no reinforcement
                held_out = make_vec_env(settings.task, min(settings.episodes, 10), reward="success", **ENV)
                found = evaluate(model, held_out, n_episodes=settings.episodes, seed=HELD_OUT)
                held_out.close()
                table.replace([{"frames": 0, "success": found.success_rate or 0.0, "earned": 0.0, "cpu_s": 0}], **key)
                continue
            rows: list[Row] = []
            for row in reinforce(settings, score_of(reward, model, known, seed), seed):
                table.replace([*rows, row], **key)
                rows.append(row)


def table(folder: Path) -> Table:
    """:return: the rows of this question"""
    return Table(
        folder / "reward_reinforcement.csv", ("task", "reward", "seed", "frames"), ("success", "earned", "cpu_s")
    )
