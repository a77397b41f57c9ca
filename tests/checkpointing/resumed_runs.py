"""
Small training runs, and the program that continues those that were ended: ``python resumed_runs.py FOLDER NAME...``.

A program and not only a module, because a run has to be continued by a process that knows nothing of the one before.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize

from difftori_gym import DiffTORI, DiffTORIImitation, ResumeCallback, make_vec_env
from difftori_gym.baselines import BC, BCRNN, IBC, MIP, TDMPC, TDMPC2, DiffusionPolicy, DrQv2, FlowMatching, Residual
from difftori_gym.il import Demonstrations, Episode
from difftori_gym.il.schedules import CosineSchedule

torch.set_num_threads(1)

HALF = 48
PLANNER: dict[str, Any] = dict(
    learning_starts=16,
    batch_size=8,
    horizon=3,
    schedule_steps=80,
    planner_kwargs=dict(max_iterations=2),
    seed=1,
    device="cpu",
    buffer_size=500,
    policy_kwargs=dict(net_arch=[16], latent_dim=6),
)
DIFFTORI = {**PLANNER, "pg_freq": 2, "pg_batch_size": 4}
TDMPC_SMALL = {**PLANNER, "planner_kwargs": dict(max_iterations=2, num_samples=24, num_elites=4, mixture_coef=0.2)}
TDMPC2_SMALL = {
    **PLANNER,
    "planner_kwargs": dict(max_iterations=2, num_samples=24, num_elites=4, num_prior_samples=4),
    "policy_kwargs": dict(net_arch=[16], latent_dim=16),
}
SB3: dict[str, Any] = dict(seed=1, device="cpu", policy_kwargs=dict(net_arch=[16]))
OFF_POLICY = dict(learning_starts=16, batch_size=8, buffer_size=500, **SB3)
DRQ: dict[str, Any] = dict(learning_starts=16, batch_size=8, buffer_size=500, seed=1, device="cpu")
IMITATION: dict[str, Any] = dict(seed=1, device="cpu", batch_size=16)
NET = dict(net_arch=[16])


class Ended(Exception):  # noqa: N818
    """What ends a run, without a word to anybody, as a power cut does."""


class EndsAt(BaseCallback):
    """Ends a run a little after its checkpoint."""

    def _on_step(self) -> bool:
        if self.num_timesteps >= HALF + 6:
            raise Ended
        return True


def pendulums(n: int, **kwargs: Any) -> Any:
    return make_vec_env("Pendulum-v1", n, seed=5, **kwargs)


def cartpoles(n: int) -> Any:
    return make_vec_env("dm_control/cartpole-swingup", n, seed=5)


def pictures(n: int) -> Any:
    return make_vec_env("dm_control/cartpole-swingup", n, seed=5, obs="pixels", obs_kwargs=dict(size=36))


def pendulum_demonstrations() -> Demonstrations:
    env = gym.make("Pendulum-v1", max_episode_steps=30)
    env.action_space.seed(0)
    episodes = []
    for seed in range(3):
        observations, actions, rewards, over = [env.reset(seed=seed)[0]], [], [], False
        while not over:
            actions.append(env.action_space.sample())
            observation, reward, _, over, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
        episodes.append(Episode(np.array(observations), np.array(actions), np.array(rewards), False, True, seed=seed))
    return Demonstrations(tuple(episodes), env.observation_space, env.action_space, "Pendulum-v1")


def falling(progress: float) -> float:
    return 1e-3 * progress


@dataclass(frozen=True)
class Run:
    """
    A learner, what it learns from (None: demonstrations), whether it needs a base policy, its policy, and whether it
    begins with demonstrations.
    """

    learner: type[Any]
    make_env: Callable[[], Any] | None
    settings: dict[str, Any]
    base: bool = False
    policy: str = "MlpPolicy"
    begins: bool = False

    def new(self) -> Any:
        if self.make_env is not None:
            model = self.learner(self.policy, self.make_env(), **copy.deepcopy(self.settings))
            return model.learn_from(pendulum_demonstrations(), 6) if self.begins else model
        settings = copy.deepcopy(self.settings)
        demonstrations = pendulum_demonstrations()
        if self.base:
            settings["base_policy"] = BC("MlpPolicy", None, demonstrations, policy_kwargs=NET, seed=3, device="cpu")
        return self.learner("MlpPolicy", None, demonstrations, **settings)

    def restored(self, resume: ResumeCallback) -> Any:
        if self.make_env is not None:
            return resume.restore(self.learner, self.make_env(), device="cpu")
        return resume.restore(self.learner, demonstrations=pendulum_demonstrations(), device="cpu")


def _subprocesses(n: int) -> Any:
    return pendulums(n, vec_env_cls=SubprocVecEnv, vec_env_kwargs={"start_method": "fork"})


WARM = dict(
    planner_kwargs=dict(max_iterations=2, init="warm"), exploration_kwargs=dict(correlation=0.9), learning_rate=falling
)
RUNS: dict[str, Run] = {
    "difftori": Run(DiffTORI, lambda: pendulums(1), DIFFTORI),
    "difftori-warm-two": Run(DiffTORI, lambda: pendulums(2), {**DIFFTORI, **WARM, "gradient_steps": -1}),
    "difftori-normalized": Run(DiffTORI, lambda: VecNormalize(pendulums(2)), DIFFTORI),
    "difftori-saved-memory": Run(
        DiffTORI,
        lambda: VecFrameStack(pendulums(2), 2),
        {
            **DIFFTORI,
            "buffer_size": 60,
            "optimize_memory_usage": True,
            "replay_buffer_kwargs": {"handle_timeout_termination": False},
        },
    ),
    "difftori-processes": Run(DiffTORI, lambda: _subprocesses(2), DIFFTORI),
    "difftori-cartpole": Run(DiffTORI, lambda: cartpoles(1), {**DIFFTORI, "train_freq": 3}),
    "difftori-cartpole-two": Run(DiffTORI, lambda: cartpoles(2), DIFFTORI),
    "difftori-pixels": Run(DiffTORI, lambda: pictures(1), DIFFTORI, policy="CnnPolicy"),
    "difftori-begins": Run(DiffTORI, lambda: pendulums(1), DIFFTORI, begins=True),
    "difftori-begins-two": Run(DiffTORI, lambda: pendulums(2), {**DIFFTORI, **WARM}, begins=True),
    "drqv2-pixels-two": Run(DrQv2, lambda: pictures(2), DRQ, policy="CnnPolicy"),
    "tdmpc": Run(TDMPC, lambda: pendulums(1), TDMPC_SMALL),
    "tdmpc-begins": Run(TDMPC, lambda: pendulums(1), TDMPC_SMALL, begins=True),
    "tdmpc-cartpole-two": Run(TDMPC, lambda: cartpoles(2), TDMPC_SMALL),
    "tdmpc2-two": Run(TDMPC2, lambda: pendulums(2), TDMPC2_SMALL),
    "sac": Run(SAC, lambda: pendulums(2), OFF_POLICY),
    "td3-noise": Run(
        TD3, lambda: pendulums(1), {**OFF_POLICY, "action_noise": OrnsteinUhlenbeckActionNoise(np.zeros(1), np.ones(1))}
    ),
    "ppo": Run(PPO, lambda: pendulums(2), {**SB3, "n_steps": 8, "batch_size": 8}),
    "bc": Run(BC, None, {**IMITATION, "policy_kwargs": NET, "learning_rate": CosineSchedule(1e-3)}),
    "bc-rnn": Run(BCRNN, None, {**IMITATION, "policy_kwargs": dict(hidden_dim=8)}),
    "ibc": Run(IBC, None, {**IMITATION, "policy_kwargs": dict(width=8, depth=2, num_counter_examples=8)}),
    "residual": Run(Residual, None, {**IMITATION, "policy_kwargs": NET}, base=True),
    "diffusion": Run(DiffusionPolicy, None, {**IMITATION, "size": "small", "num_inference_steps": 3}),
    "flow": Run(FlowMatching, None, {**IMITATION, "size": "small", "num_inference_steps": 3}),
    "mip": Run(MIP, None, {**IMITATION, "size": "small"}),
    "difftori-imitation": Run(
        DiffTORIImitation,
        None,
        {**IMITATION, "policy_kwargs": NET, "latent_dim": 4, "planner_kwargs": {"max_iterations": 2}},
        base=True,
    ),
}


def weights(model: Any) -> dict[str, torch.Tensor]:
    """All numbers that training changes: networks, moving averages, moments of the optimisers."""
    found = {}
    for name, value in model.get_parameters().items():
        _flatten(name, value, found)
    return found


def _flatten(name: str, value: Any, found: dict[str, torch.Tensor]) -> None:
    if isinstance(value, dict):
        for key, entry in value.items():
            _flatten(f"{name}.{key}", entry, found)
    elif isinstance(value, torch.Tensor):
        found[name] = value.detach().clone()


def go_on(folder: Path, name: str) -> None:
    """Restore a run that was ended, train the rest of it and save its weights."""
    run = RUNS[name]
    resume = ResumeCallback(folder / name, every_steps=HALF, every_seconds=None)
    model = run.restored(resume)
    assert model.num_timesteps == HALF, model.num_timesteps
    model.learn(HALF, callback=resume, reset_num_timesteps=False)
    torch.save(weights(model), folder / f"{name}.pt")
    if model.env is not None:
        model.env.close()


if __name__ == "__main__":
    for each in sys.argv[2:]:
        go_on(Path(sys.argv[1]), each)
