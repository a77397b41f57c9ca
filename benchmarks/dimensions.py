"""
How plan and update grow with the number of state and action components.

    python benchmarks/dimensions.py --out results/benchmarks

Learners with the presets of examples/compare.py (networks of 128 units) on spaces that hold noise, 4 to 400 state
components at 6 actions and 1 to 60 actions at 24 state components. A plan is of one observation, at full horizon; an
update is the mean of a whole round of them, the policy gradient included. One process, one thread, learners in turns,
medians of processor time.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv
from tables import Job, machine, medians, save_table

from difftori_gym.baselines.methods import get_method

METHODS = {"DiffTORI": "difftori", "TD-MPC": "tdmpc", "SAC": "sac"}
STATES, ACTIONS = (4, 24, 100, 400), (1, 6, 21, 60)
#: Updates of a round: the policy gradient is taken every fifth time, the prior every second.
ROUND = 10


class Noise(gym.Env[np.ndarray, np.ndarray]):
    """Observations and rewards that nothing decides."""

    def __init__(self, state_dim: int, action_dim: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (state_dim,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)

    def _observe(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict[str, object]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        return self._observe(), float(self.np_random.random()), False, False, {}


def learner(method: str, state_dim: int, action_dim: int) -> OffPolicyAlgorithm:
    """A learner of the preset after its first updates, at full horizon."""
    env = DummyVecEnv([partial(Noise, state_dim, action_dim)])
    found = get_method(method)
    settings = found.hyperparameters("dm_control/walker-walk", dict(learning_starts=300))
    settings |= dict(schedule_steps=0) if method != "sac" else {}
    model = found.build(env, seed=0, device="cpu", hyperparameters=settings)
    model.learn(310)
    assert isinstance(model, OffPolicyAlgorithm)
    return model


def measure(state_dim: int, action_dim: int, seconds: float, rounds: int) -> list[dict[str, object]]:
    observation = np.random.default_rng(0).standard_normal(state_dim).astype(np.float32)
    models = {name: learner(method, state_dim, action_dim) for name, method in METHODS.items()}
    rows: list[dict[str, object]] = []
    for what in ("plan", "update"):
        jobs: dict[str, Job] = {}
        for name, model in models.items():
            if what == "plan":
                jobs[name] = partial(model.predict, observation, deterministic=True)
            else:
                jobs[name] = partial(model.train, ROUND, model.batch_size)
        times, count = medians(jobs, seconds, rounds)
        calls = 1 if what == "plan" else ROUND
        named = {name: milliseconds / calls for name, milliseconds in times.items()}
        rows.append(dict(what=what, states=state_dim, actions=action_dim, rounds=count, **named))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, nargs="+", default=STATES)
    parser.add_argument("--actions", type=int, nargs="+", default=ACTIONS)
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time of each row, about")
    parser.add_argument("--rounds", type=int, default=50, help="at most so many rounds")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [*((states, 6) for states in args.states), *((24, actions) for actions in args.actions if actions != 6)]
    rows = [row for size in sizes for row in measure(*size, args.seconds, args.rounds)]
    rows.sort(key=lambda row: str(row["what"]))
    headings = {
        "what": "",
        "states": "states",
        "actions": "actions",
        "rounds": "rounds",
        **{f"{name}": f"{name}, ms" for name in METHODS},
    }
    notes = [
        f"Presets of compare.py, batch 128 (SAC 256); an update is the mean of {ROUND}.",
        machine(torch.device("cpu")),
    ]
    print(save_table(rows, headings, notes, args.out, "dimensions"))


if __name__ == "__main__":
    main()
