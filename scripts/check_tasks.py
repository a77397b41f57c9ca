"""
Reset, step, draw and train on the paper's 15 tasks of the DeepMind Control Suite, from state and from pixels.

    python scripts/check_tasks.py

Trains DiffTORI with each task's preset, in small batches, for a few hundred agent steps. Prints a Markdown table;
fails where an observation leaves its space, a number is not finite, an image is empty or a network did not move.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from difftori_gym.baselines.methods import get_method
from difftori_gym.envs import SUITES, make_env, make_vec_env
from difftori_gym.envs.dm_control import ACTION_REPEAT

PAPER_TASKS = SUITES["dm_control"].paper_tasks
STEPS = 20
#: what differs from the presets, so that all tasks take minutes
QUICK: dict[str, dict[str, Any]] = {
    "state": dict(learning_starts=100, batch_size=32, buffer_size=2000, train_freq=4, gradient_steps=1),
    "pixels": dict(learning_starts=100, batch_size=16, buffer_size=2000),
}


class LastValues(KVWriter):
    """Keeps the numbers that were logged last."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.values = dict(key_values)

    def close(self) -> None:
        pass


def walk(env: gym.Env[Any, Any]) -> None:
    """Two short episodes with random actions."""
    for _ in range(2):
        observation, _ = env.reset()
        for _ in range(STEPS):
            if not env.observation_space.contains(observation):
                raise ValueError(f"observation outside of {env.observation_space}")
            observation, reward, _, _, _ = env.step(env.action_space.sample())
            if not np.isfinite(float(reward)):
                raise ValueError(f"reward {reward}")
    if observation.dtype == np.uint8 and observation.std() < 1.0:
        raise ValueError("empty image")


def train(task: str, obs: str, steps: int) -> str:
    """Train in two halves; returns updates, the consistency loss of both halves, and seconds of processor time."""
    started = time.process_time()
    env = make_vec_env(f"dm_control/{task}", obs=obs, seed=0)  # type: ignore[arg-type]
    method = get_method("difftori", obs)
    hyperparameters = method.hyperparameters(f"dm_control/{task}", QUICK[obs], obs)
    model = method.build(env, seed=0, device="cpu", hyperparameters=hyperparameters)
    assert isinstance(model, OffPolicyAlgorithm)
    before = [parameter.detach().clone() for parameter in model.policy.optimizer.param_groups[0]["params"]]
    log = LastValues()
    model.set_logger(Logger(folder=None, output_formats=[log]))
    losses = []
    for _ in range(2):
        model.learn(steps // 2, reset_num_timesteps=False, log_interval=10**9)
        model.dump_logs()
        losses.append(log.values["train/consistency_loss"])
        for name, value in log.values.items():
            if name.startswith("train/") and not np.isfinite(value):
                raise ValueError(f"{task} from {obs}: {name} is {value}")
    after = model.policy.optimizer.param_groups[0]["params"]
    if not all(torch.isfinite(parameter).all() for parameter in after):
        raise ValueError(f"{task} from {obs}: parameters that are not finite")
    if all(torch.equal(*pair) for pair in zip(before, after, strict=True)):
        raise ValueError(f"{task} from {obs}: nothing was learned")
    env.close()
    return f"{model._n_updates}: {losses[0]:.3g} to {losses[1]:.3g}, {time.process_time() - started:.0f} s"


def check(task: str, steps: int) -> list[object]:
    """One row of the table."""
    shapes, trained = [], []
    for obs in ("state", "pixels"):
        env = make_env(f"dm_control/{task}", obs=obs, seed=0, render_mode="rgb_array")  # type: ignore[arg-type]
        walk(env)
        shapes.append(env.observation_space.shape)
        film = np.asarray(env.render())
        if film.std() < 1.0:
            raise ValueError(f"{task}: empty film")
        actions = env.action_space.shape
        env.close()
        trained.append(train(task, obs, steps))
    return [task, ACTION_REPEAT[task], *shapes, actions, film.shape, *trained]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=PAPER_TASKS, default=PAPER_TASKS)
    parser.add_argument("--steps", type=int, default=300, help="agent steps of training, default: 300")
    args = parser.parse_args()

    torch.set_num_threads(1)
    print("| task | frames per step | state | pixels | action | film | training from state | training from pixels |")
    print("|---|---|---|---|---|---|---|---|")
    for task in args.tasks:
        print("| " + " | ".join(str(cell) for cell in check(task, args.steps)) + " |", flush=True)
    print(
        f"\n{len(args.tasks)} tasks, each from state and from pixels: two resets and {2 * STEPS} steps with random "
        f"actions, a film frame, {args.steps} agent steps of training (updates, consistency loss of the first and "
        f"second half, seconds of processor time)."
    )


if __name__ == "__main__":
    main()
