"""
Reset, step and draw the paper's 15 tasks of the DeepMind Control Suite, from state and from pixels.

    python scripts/check_tasks.py

Prints a Markdown table; fails where an observation leaves its space, a number is not finite or an image is empty.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from difftori_gym.envs import make_env
from difftori_gym.envs.dm_control import ACTION_REPEAT

PAPER_TASKS = [task for task in ACTION_REPEAT if task != "cartpole-swingup"]
STEPS = 20


def walk(env: gym.Env[Any, Any]) -> float:
    """Two short episodes with random actions; returns the sum of rewards."""
    total = 0.0
    for _ in range(2):
        observation, _ = env.reset()
        for _ in range(STEPS):
            if not env.observation_space.contains(observation):
                raise ValueError(f"observation outside of {env.observation_space}")
            observation, reward, _, _, _ = env.step(env.action_space.sample())
            total += float(reward)
            if not np.isfinite(total):
                raise ValueError(f"reward {reward}")
    if observation.dtype == np.uint8 and observation.std() < 1.0:
        raise ValueError("empty image")
    return total


def main() -> None:
    print("| task | frames per step | state | pixels | action | film |")
    print("|---|---|---|---|---|---|")
    for task in PAPER_TASKS:
        shapes = []
        for obs in ("state", "pixels"):
            env = make_env(f"dm_control/{task}", obs=obs, seed=0, render_mode="rgb_array")  # type: ignore[arg-type]
            walk(env)
            shapes.append(env.observation_space.shape)
            film = np.asarray(env.render())
            if film.std() < 1.0:
                raise ValueError(f"{task}: empty film")
            actions = env.action_space.shape
            env.close()
        cells = [task, ACTION_REPEAT[task], *shapes, actions, film.shape]
        print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
    print(f"\n{len(PAPER_TASKS)} tasks: two resets and {2 * STEPS} steps each from state and from pixels.")


if __name__ == "__main__":
    main()
