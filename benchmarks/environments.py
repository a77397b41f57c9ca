"""
Microseconds of the wrappers, pictures and clouds per second, and farthest-point sampling.

    python benchmarks/environments.py --out results/benchmarks

One process; medians of processor time, which other work on the machine does not count into. Suites that are not
installed are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from tables import medians, save_table

from difftori_gym.envs import SUITES, make_env, parse_task
from difftori_gym.wrappers import farthest_point_sampling

TASKS = ("dm_control/cartpole-swingup", "dm_control/walker-walk", "metaworld/reach", "robosuite/Lift")
STEPS = 20
TABLES = ("sampling", "wrappers", "pictures")
CLOUDS = ((1, 100_000, 1024), (1, 7056, 512), (1, 2000, 512), (16, 2000, 512))


def installed() -> list[str]:
    found = []
    for id in TASKS:
        try:
            parse_task(id)
        except ImportError as error:
            print(f"left out {id}: {error}")
        else:
            found.append(id)
    return found


def stepping(env: gym.Env[Any, Any]) -> Callable[[], None]:
    """Some steps with one action, with a reset where the episode ends."""
    env.reset(seed=0)
    action = env.action_space.sample()

    def job() -> None:
        for _ in range(STEPS):
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return job


def without_simulation(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The same wrappers around an environment that gives the same answer every time, so that only they take time."""
    env.reset(seed=0)
    answer = env.unwrapped.step(env.action_space.sample())
    env.unwrapped.step = lambda action: answer  # type: ignore[method-assign]
    return env


def wrapper_costs(ids: list[str], seconds: float, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for id in ids:
        bare = make_env(id, seed=0, action_repeat=1)
        wrapped = without_simulation(make_env(id, seed=0, action_repeat=1))
        times, count = medians({"bare": stepping(bare.unwrapped), "wrappers": stepping(wrapped)}, seconds, rounds)
        rows.append({"task": id, **{name: 1000.0 * time / STEPS for name, time in times.items()}, "rounds": count})
        bare.close()
        wrapped.close()
        print(f"measured wrappers of {id}", flush=True)
    return rows


def drawing(env: gym.Env[Any, Any], camera: Any) -> Callable[[], None]:
    env.reset(seed=0)
    cameras = env.get_wrapper_attr("cameras")

    def job() -> None:
        for _ in range(STEPS):
            cameras.image(camera, 84, 84)

    return job


def pictures(ids: list[str], seconds: float, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for id in ids:
        task = parse_task(id)
        camera = SUITES[task.suite].preset(task.task, "pixels").camera  # type: ignore[union-attr]
        camera = camera[0] if isinstance(camera, tuple) else camera
        plain = {"action_repeat": 1, "seed": 0}
        envs = {
            "fast": make_env(id, **plain),
            "pretty": make_env(id, fast_render=False, **plain),
            "pixels": make_env(id, obs="pixels", **plain),
            "pointcloud": make_env(id, obs="pointcloud", **plain),
        }
        jobs = {
            name: drawing(env, camera) if name in ("fast", "pretty") else stepping(env) for name, env in envs.items()
        }
        times, count = medians(jobs, seconds, rounds)
        rows.append({"task": id, **{name: 1000.0 * STEPS / time for name, time in times.items()}, "rounds": count})
        for env in envs.values():
            env.close()
        print(f"measured pictures of {id}", flush=True)
    return rows


def sampling(seconds: float, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for batch, number, num_points in CLOUDS:
        points = torch.rand(batch, number, 3, generator=torch.Generator().manual_seed(0))
        times, count = medians({"ms": lambda p=points, n=num_points: farthest_point_sampling(p, n)}, seconds, rounds)  # type: ignore[misc]
        rows.append({"batch": batch, "from": number, "to": num_points, "ms": times["ms"], "rounds": count})
        print(f"measured sampling of {batch} x {number}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per row, about")
    parser.add_argument("--rounds", type=int, default=30, help="greatest number of rounds")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="what to measure")
    args = parser.parse_args()

    torch.set_num_threads(1)
    ids = installed()
    if "sampling" in args.tables:
        headings = {"batch": "clouds", "from": "points", "to": "chosen", "ms": "ms", "rounds": "rounds"}
        notes = [f"Farthest-point sampling, CPU, one thread; medians of processor time. torch {torch.__version__}."]
        rows = sampling(args.seconds, args.rounds)
        print(save_table(rows, headings, notes, args.out, "farthest_point_sampling"))
    if "wrappers" in args.tables:
        headings = {"task": "task", "bare": "suite, µs", "wrappers": "wrappers, µs", "rounds": "rounds"}
        notes = [
            "One step from state, without action repeat, and what the wrappers of make_env add to it (timed around an",
            "environment that repeats a recorded answer); medians of processor time.",
        ]
        rows = wrapper_costs(ids, args.seconds, args.rounds)
        print(save_table(rows, headings, notes, args.out, "wrappers"))
    if "pictures" in args.tables:
        headings = {
            "task": "task",
            "fast": "pictures/s",
            "pretty": "pictures/s, fast_render=False",
            "pixels": "steps/s, pixels",
            "pointcloud": "steps/s, pointcloud",
            "rounds": "rounds",
        }
        notes = ["84 x 84 on the CPU, one camera; steps with the task's preset. Per second of processor time, medians."]
        rows = pictures(ids, args.seconds, args.rounds)
        print(save_table(rows, headings, notes, args.out, "pictures"))


if __name__ == "__main__":
    main()
