"""
What the solvers reach on trained latent models, and in what time: a table, and a figure of objective against time.

    python examples/compare.py --methods difftori --tasks dm_control/cartpole-swingup dm_control/cheetah-run \
        dm_control/pendulum-swingup --seeds 0 --frames 14000 --no-video --out results/bench-models
    python benchmarks/trained_models.py --models results/bench-models --out results/benchmarks

``--models`` are folders of ``examples/compare.py``; every run of DiffTORI in them is taken. The states are those that
its policy visits. Saves ``trained_models.md``, ``.csv`` and ``.png``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tables import machine, medians, save_table
from torch import Tensor

from difftori_gym import DiffTORI, make_env
from difftori_gym.models import LatentModel, LatentObjective, rollout_prior
from difftori_gym.trajopt import Solution, TrajectoryOptimizer
from difftori_gym.trajopt.settings import SAMPLING_SOLVERS

# Step size and damping of DiffTORI's released code by task; others are solved with cheetah-run's.
RELEASED = {"cartpole-swingup": (1e-3, 0.5), "cheetah-run": (1e-4, 1e-3), "pendulum-swingup": (1e-4, 1e-3)}
NUM_PRIOR_SAMPLES = 24
TOLERANCE = 1e-4
SERIES = {
    "lm": (dict(solver="lm"), (1, 3, 10, 30, 100)),
    "adam, 1 start": (dict(solver="adam", num_starts=1), (3, 10, 20, 30)),
    "adam, 6 starts": (dict(solver="adam", num_starts=6), (3, 10, 20, 30)),
    "newton": (dict(solver="newton"), (1, 3, 5)),
    "cem": (dict(solver="cem"), (1, 3, 6)),
    "mppi": (dict(solver="mppi"), (1, 3, 6)),
}
DEFAULT = "default: adam, 6 starts, 8 + 3.1 sqrt(H A)"
REFERENCES = ("lm, released settings, 100", "mppi, 6")
HEADINGS = {
    "task": "task",
    "solver": "solver and iterations",
    "mean": "objective, mean",
    "gain": "gain over the start, share of the best known",
    "as_lm": "states at least as high as the paper's LM, %",
    "as_mppi": "as MPPI, %",
    "as_both": "as both, %",
    "ms": "ms at batch 1",
    "of_mppi": "share of MPPI's time",
}


@dataclass(frozen=True)
class Case:
    """A trained model, and latent states that its policy visits ``[N, Z]``."""

    task: str
    model: LatentModel
    z: Tensor
    horizon: int
    discount: float

    def solve(self, optimizer: TrajectoryOptimizer, z: Tensor) -> Solution:
        """:return: plans from ``z`` ``[B, Z]`` as the planner makes them, the same at every call"""
        # Without one, random starts are the same at every call, too, and need not be drawn anew.
        generator = torch.Generator().manual_seed(0) if optimizer.solver in SAMPLING_SOLVERS else None
        candidates = None
        if optimizer.solver == "mppi":  # TD-MPC's planner also values noisy rollouts of the prior
            shape = (NUM_PRIOR_SAMPLES * len(z), self.horizon, self.model.action_dim)
            noise = optimizer.min_std * torch.randn(shape, generator=generator)
            rollouts = rollout_prior(self.model, z.repeat(NUM_PRIOR_SAMPLES, 1), self.horizon, noise)
            candidates = rollouts.unflatten(0, (NUM_PRIOR_SAMPLES, len(z)))
        start = rollout_prior(self.model, z, self.horizon)
        objective = LatentObjective(self.model, z, discount=self.discount)
        return optimizer(objective, start, candidates=candidates, generator=generator)


def load_case(run: Path, num_states: int) -> Case:
    """
    :param run: folder of one run
    :param num_states: N
    :return: the newest model in it, with states of its own episodes
    """
    arguments = json.loads((run / "run.json").read_text(encoding="utf-8"))["settings"]
    model = DiffTORI.load(max(run.glob("checkpoint-*")) / "model.zip", device="cpu")
    env = make_env(f"{arguments['suite']}/{arguments['task']}", seed=0)
    observations, done = [], True
    while len(observations) < 3 * num_states:
        if done:
            observation, _ = env.reset(seed=None if observations else 0)
        observations.append(observation)
        action, _ = model.predict(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    chosen = np.random.default_rng(0).choice(len(observations), num_states, replace=False)
    policy = model.policy
    with torch.no_grad():
        z = policy.encode(torch.as_tensor(np.stack(observations)[chosen], dtype=torch.float32))
    return Case(arguments["task"], policy.model, z, policy.horizon, policy.planner.discount)


def optimizers(task: str) -> dict[str, TrajectoryOptimizer]:
    """Settings by the name of the row."""
    step_size, damping = RELEASED.get(task, RELEASED["cheetah-run"])
    released = dict(solver="lm", max_iterations=100, step_size=step_size, damping=damping, bounds="clamp")
    settings = {REFERENCES[0]: released, DEFAULT: {}}
    for name, (common, counts) in SERIES.items():
        settings.update({f"{name}, {count}": {**common, "max_iterations": count} for count in counts})
    return {name: TrajectoryOptimizer(**each, backward_mode="none") for name, each in settings.items()}


def measure(case: Case, seconds: float) -> list[dict[str, object]]:
    """Rows of one trained model."""
    solvers = optimizers(case.task)
    values = {name: case.solve(optimizer, case.z).values for name, optimizer in solvers.items()}
    alone = iter(case.z.repeat(1000, 1).split(1))
    jobs = {name: lambda o=optimizer: case.solve(o, next(alone)) for name, optimizer in solvers.items()}
    times, _ = medians(jobs, seconds, 40)
    with torch.no_grad():
        start = LatentObjective(case.model, case.z, discount=case.discount)(
            rollout_prior(case.model, case.z, case.horizon)
        )
    best = torch.stack(list(values.values())).amax(0)
    lm, mppi = (values[name] for name in REFERENCES)
    rows = []
    for name, found in values.items():
        as_lm, as_mppi = (found >= reference - TOLERANCE * reference.abs() for reference in (lm, mppi))
        row: dict[str, object] = dict(task=case.task, solver=name, mean=found.mean().item(), ms=times[name])
        row["gain"] = ((found - start).mean() / (best - start).mean()).item()
        shares = dict(as_lm=as_lm, as_mppi=as_mppi, as_both=as_lm & as_mppi)
        row.update({column: 100.0 * share.float().mean().item() for column, share in shares.items()})
        rows.append({**row, "of_mppi": times[name] / times[REFERENCES[1]]})
    return rows


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Gain over the start against time, one panel for each task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, axes = plt.subplots(1, len(tasks), figsize=(5 * len(tasks), 4), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for name in (REFERENCES[0].rpartition(",")[0], *SERIES):
            points = [row for row in rows if row["task"] == task and str(row["solver"]).rpartition(",")[0] == name]
            axis.plot([row["ms"] for row in points], [row["gain"] for row in points], "o-", ms=4, label=name)
        axis.set(title=str(task), xscale="log", xlabel="ms for one plan", ylim=(-0.1, 1.05))
    axes[0, 0].set_ylabel("gain over the start, share of the best known")
    axes[0, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Path, default=[Path("results/bench-models")])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--states", type=int, default=200, help="states per model")
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time per model, about")
    args = parser.parse_args()

    torch.set_num_threads(1)
    runs = [run for folder in args.models for run in sorted(folder.glob("runs/difftori-*")) if any(run.glob("check*"))]
    if not runs:
        parser.error(f"expected runs of DiffTORI in {', '.join(map(str, args.models))}, got none: see --help")
    rows: list[dict[str, object]] = []
    notes = [
        f"{args.states} states that each policy visits. {machine(torch.device('cpu'))} Processor time, medians.",
        f"At least as high: within {TOLERANCE:g} of the value. mppi: 512 samples, {NUM_PRIOR_SAMPLES} prior rollouts.",
    ]
    for run in runs:
        case = load_case(run, args.states)
        width = case.model.dynamics[0].out_features
        notes.append(f"{case.task}: width {width}, horizon {case.horizon}, {case.model.action_dim} actions.")
        rows += measure(case, args.seconds)
        print(f"measured {case.task}", flush=True)
    print(save_table(rows, HEADINGS, notes, args.out, "trained_models"))
    draw(rows, args.out / "trained_models.png")


if __name__ == "__main__":
    main()
