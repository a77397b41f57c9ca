"""
Milliseconds of learning from images: an environment's step, a plan, an update, for DiffTORI and DrQ-v2.

    python benchmarks/pixels.py --out results/benchmarks

cartpole-swingup, 84 x 84, three colour frames stacked. DiffTORI has the sizes of its preset for images. Everything runs
in one process and one thread, in turns; times are medians of processor time.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, ReshapeObservation
from tables import medians, save_table

from difftori_gym import DiffTORI, make_env
from difftori_gym.baselines import DrQv2
from difftori_gym.baselines.methods import METHODS

TASK = "dm_control/cartpole-swingup"
SIZE = 84


class Film(gym.ObservationWrapper[Any, np.ndarray, Any]):
    """What ``env.render()`` shows, channels first."""

    def __init__(self, env: gym.Env[Any, np.ndarray]) -> None:
        super().__init__(env)
        self.observation_space = spaces.Box(0, 255, (3, SIZE, SIZE), np.uint8)

    def observation(self, observation: Any) -> np.ndarray:
        return np.ascontiguousarray(np.asarray(self.env.render()).transpose(2, 0, 1))


def pixels() -> gym.Env[Any, np.ndarray]:
    env = make_env(TASK, seed=0, render_mode="rgb_array", width=SIZE, height=SIZE)
    return ReshapeObservation(FrameStackObservation(Film(env), 3), (9, SIZE, SIZE))


def difftori(env: gym.Env[Any, np.ndarray], batch_size: int, horizon: int, slow_targets: bool) -> DiffTORI:
    """After one update at full horizon, so that no network is still at its starting point."""
    settings = METHODS["rl"]["difftori"].hyperparameters(TASK, obs="pixels")
    settings.update(batch_size=batch_size, horizon=horizon, buffer_size=500, learning_starts=30, schedule_steps=0)
    settings["policy_kwargs"] = {**settings["policy_kwargs"], "slow_targets": slow_targets}
    model = DiffTORI("CnnPolicy", env, seed=0, device="cpu", **settings).learn(30)
    model.train(1, batch_size)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time, about")
    parser.add_argument("--large", action="store_true", help="also batches as large as the preset for states has them")
    args = parser.parse_args()

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    env = pixels()
    jobs: dict[str, Any] = {}
    for batch, horizon in ((64, 3), (128, 5))[: 1 + args.large]:
        for slow in (True, False):
            model = difftori(env, batch, horizon, slow)
            name = f"DiffTORI, {batch} windows of {horizon}{'' if slow else ', targets encoded twice'}"
            jobs[name] = partial(model.train, model.update_settings.pg_freq, batch)
            if "plan" not in jobs:
                jobs["plan"] = partial(model.predict, env.reset(seed=0)[0], deterministic=True)
    baseline = DrQv2("CnnPolicy", env, seed=0, device="cpu", buffer_size=500, learning_starts=30).learn(30)
    jobs["DrQ-v2, 256 transitions"] = partial(baseline.train, 1, 256)
    jobs["environment step"] = partial(env.step, np.zeros(1, np.float32))  # past the end of an episode, too
    times, rounds = medians(jobs, args.seconds, 20)
    rows = []
    for name, time in times.items():
        per_call = 5 if name.startswith("DiffTORI") else 1  # so that one policy-gradient loss is among them
        rows.append({"what": name, "ms": time / per_call})
    notes = [
        f"{TASK}, {SIZE} x {SIZE}, action repeat 4; one thread; medians of {rounds} rounds, processor time.",
        "DiffTORI: an update, with its share of the policy-gradient loss, 32 states every 5 updates.",
        f"torch {torch.__version__}.",
    ]
    print(save_table(rows, {"what": "what", "ms": "ms"}, notes, args.out, "pixels"))


if __name__ == "__main__":
    main()
