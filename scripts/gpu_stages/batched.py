"""Stage c: a thousand environments at once, DiffTORI beside Stable-Baselines3's SAC and TD3 on the same ones."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

from difftori_gym import make_vec_env
from difftori_gym.envs.registry import parse_task, task_action_repeat
from gpu_stages.stage import Stage
from gpu_stages.walking import Until

TASK = "playground/cartpole-swingup"
METHODS = ("difftori", "sac", "td3")


def run(stage: Stage) -> None:
    """:param stage: what is measured with"""
    from difftori_gym.envs.playground import configure_jax

    configure_jax()
    # One program for every method: to compile it takes a minute on a GPU.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(stage.work / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    envs, updates = stage.choose((1024, 8), (2, 1))
    args = argparse.Namespace(
        task=TASK,
        device=str(stage.device),
        gradient_steps=updates,
        batch_size=stage.choose(512, 8),
        steps=stage.choose(100, 2),
        warmup=stage.choose(20, 4),
    )
    rates = stage.table("c_frames", ("task", "method", "envs", "updates_per_step"), ("frames_per_s", "ms_per_step"))
    for method in stage.choose(("tensors", *METHODS), ("difftori",)):
        key = dict(task=TASK, method=method, envs=envs, updates_per_step=updates)
        stage.row(rates, lambda method=method: _rate(method, envs, args), 40.0, **key)
    _returns(stage, envs, args)


def _rate(method: str, envs: int, args: argparse.Namespace) -> dict[str, Any]:
    from batched_environments import measure

    rate = float(str(measure(method, envs, args)["fps"]))
    return dict(frames_per_s=rate, ms_per_step=1000.0 * envs * task_action_repeat(parse_task(args.task)) / rate)


def _returns(stage: Stage, envs: int, args: argparse.Namespace) -> None:
    """Returns of training, minute by minute."""
    table = stage.table(
        "c_returns",
        ("task", "method", "envs", "updates_per_step", "seconds"),
        ("frames", "mean_return", "episodes"),
    )
    seconds = stage.choose(min(90.0, stage.budget.left / len(METHODS) - 20.0), 1.0)
    every = stage.choose(15.0, 0.2)
    for method in stage.choose(METHODS, ("sac",)):
        key = dict(task=TASK, method=method, envs=envs, updates_per_step=args.gradient_steps)
        done = {"device": stage.name_of_device, **key}
        if not table.has(**done) and seconds > 0:
            try:
                _train(stage, table, method, envs, args, seconds, every, done)
            except (RuntimeError, ValueError, ImportError) as error:
                print(f"c_returns: {method} cannot run: {str(error).strip().splitlines()[0][:200]}", flush=True)


def _train(
    stage: Stage, table: Any, method: str, envs: int, args: argparse.Namespace, seconds: float, every: float, key: Any
) -> None:
    from batched_environments import learner

    env = make_vec_env(args.task, n_envs=envs, seed=0)
    model = learner(env, method, args)
    repeat = task_action_repeat(parse_task(args.task))

    def told(after: float, steps: int) -> None:
        episodes = [each["r"] for each in model.ep_info_buffer or ()]
        row = dict(frames=steps * repeat, mean_return=float(np.mean(episodes)) if episodes else None)
        table.add(**key, seconds=round(after, 1), **row, episodes=model._episode_num)

    model.learn(args.warmup * envs)  # everything is compiled
    clock = Until(seconds, told, every)
    model.learn(10**9, callback=clock, reset_num_timesteps=False)
    told(seconds, model.num_timesteps)
    env.close()
