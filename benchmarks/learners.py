"""
Milliseconds to plan and to update, for DiffTORI and TD-MPC on one task.

    python benchmarks/learners.py --out results/benchmarks

Both learners have the same networks (latent 50, width 256) and the same replayed data; they plan the same observations
at full horizon, DiffTORI with its default solver, TD-MPC with MPPI (512 samples, 6 iterations). Everything runs in one
process and one thread, in turns; times are medians of processor time.
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tables import medians, save_table

from difftori_gym import DiffTORI, make_vec_env
from difftori_gym.baselines import TDMPC

TASK = "dm_control/cheetah-run"
BATCHES = (1, 8, 64)
UPDATE_BATCHES = (64, 128, 256)
TERMINATING = "plan with terminations"
LEARNERS = {"DiffTORI": DiffTORI, "TD-MPC": TDMPC}


def trained_learners() -> dict[str, DiffTORI]:
    """Both learners after a few updates at full horizon, so that no network is still at its starting point."""
    learners = {}
    for name, cls in LEARNERS.items():
        env = make_vec_env(TASK, seed=0)
        model = cls("MlpPolicy", env, seed=0, device="cpu", learning_starts=300, buffer_size=2000, schedule_steps=0)
        model.learn(320)
        learners[name] = model
    return learners


def measure(learners: dict[str, DiffTORI], seconds: float, rounds: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for what, batches in (("plan", BATCHES), (TERMINATING, BATCHES), ("update", UPDATE_BATCHES)):
        for model in learners.values():
            model.policy.model.episodic = what == TERMINATING
        for batch in batches:
            jobs = {}
            for name, model in learners.items():
                if what != "update":
                    observations = np.stack([model.observation_space.sample() for _ in range(batch)]).clip(-3, 3)
                    jobs[name] = partial(model.predict, observations, deterministic=True)
                else:
                    # As many updates as there are between two policy-gradient losses, so that each turn has one.
                    jobs[name] = partial(model.train, model.update_settings.pg_freq, batch)
            times, count = medians(jobs, seconds, rounds)
            per_call = learners["DiffTORI"].update_settings.pg_freq if what == "update" else 1
            row: dict[str, object] = {"what": what, "batch": batch, "rounds": count}
            row.update({name: time / per_call for name, time in times.items()})
            row["ratio"] = times["TD-MPC"] / times["DiffTORI"]
            rows.append(row)
            print(f"measured {what}, batch {batch}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder of the tables")
    parser.add_argument("--seconds", type=float, default=10.0, help="measuring time per row, about")
    parser.add_argument("--rounds", type=int, default=50, help="greatest number of rounds")
    args = parser.parse_args()

    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure(trained_learners(), args.seconds, args.rounds)
    headings = {
        "what": "what",
        "batch": "batch",
        "DiffTORI": "DiffTORI, ms",
        "TD-MPC": "TD-MPC, ms",
        "ratio": "TD-MPC / DiffTORI",
        "rounds": "rounds",
    }
    notes = [
        f"{TASK}: latent 50, width 256, horizon 5; float32, one thread; medians of interleaved rounds, processor time.",
        "DiffTORI: 10 iterations; an update includes its share of the policy-gradient loss, 64 states every 5 updates.",
        f"{TERMINATING.capitalize()}: the same networks, once an episode has terminated; survival weighs the return.",
        "TD-MPC: MPPI, 512 samples, 6 iterations. Update batches are windows of 5 transitions.",
        f"torch {torch.__version__}.",
    ]
    print(save_table(rows, headings, notes, args.out, "learners"))


if __name__ == "__main__":
    main()
