"""
Memory of a process that plans for a long time: it should not grow, whatever sizes it meets.

    python benchmarks/memory.py --out results/benchmarks

Solves small latent problems, 100,000 by default. Every thousand solves the solver, the batch size and the horizon
change; every tenth solve is differentiated, the others keep no graph, as in training with a planner. Prints the
resident memory of the process and the number of its living tensors ten times, and saves them as ``memory.md`` and
``memory.csv``.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from pathlib import Path

import torch
from tables import save_table

from difftori_gym.models import LatentModel, LatentObjective, rollout_prior
from difftori_gym.trajopt import TrajectoryOptimizer

LATENT_DIM, ACTION_DIM, WIDTH = 16, 2, 64
BLOCK, DIFFERENTIATE_EVERY = 1000, 10
SOLVERS = ("lm", "adam")
BATCHES = (1, 1, 2, 1, 8, 1, 3, 16)
HORIZONS = (1, 2, 3, 4, 5)
HEADINGS = {
    "solves": "solves",
    "resident_mib": "resident memory, MiB",
    "growth_mib": "since the first row, MiB",
    "tensors": "living tensors",
    "seconds": "seconds",
}


def resident_mebibytes() -> float:
    """:return: memory of this process that is in RAM"""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def living_tensors() -> int:
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def make_model() -> LatentModel:
    torch.manual_seed(0)
    arch = (WIDTH, WIDTH)
    model = LatentModel(LATENT_DIM, ACTION_DIM, dynamics_arch=arch, reward_arch=arch, qf_arch=arch, pi_arch=arch)
    for parameter in model.parameters():  # heads start at zero, where there is nothing to optimise
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return model


def solve_block(model: LatentModel, index: int, solves: int) -> None:
    """Solve ``solves`` problems of the sizes of block number ``index``."""
    optimizer = TrajectoryOptimizer(solver=SOLVERS[index % len(SOLVERS)])  # type: ignore[arg-type]
    planner = optimizer.replace(backward_mode="none")
    batch, horizon = BATCHES[index % len(BATCHES)], HORIZONS[index % len(HORIZONS)]
    parameters = list(model.parameters())
    for number in range(solves):
        z = torch.randn(batch, LATENT_DIM)
        start = rollout_prior(model, z, horizon)
        objective = LatentObjective(model, z, discount=0.99)
        if number % DIFFERENTIATE_EVERY:
            planner(objective, start)
        else:
            loss = optimizer(objective, start).actions.square().mean()
            torch.autograd.grad(loss, parameters, allow_unused=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for memory.md and .csv")
    parser.add_argument("--solves", type=int, default=100_000, help="a multiple of 10000")
    args = parser.parse_args()
    rows_every = args.solves // (10 * BLOCK)
    if rows_every < 1 or args.solves % (10 * BLOCK):
        parser.error(f"--solves needs a positive multiple of {10 * BLOCK}, got {args.solves}")

    torch.set_num_threads(1)
    model = make_model()
    notes = [
        f"Solvers {', '.join(SOLVERS)}, default settings; latent {LATENT_DIM}, width {WIDTH}, A {ACTION_DIM}. "
        f"Batches {', '.join(map(str, BATCHES))} and horizons {', '.join(map(str, HORIZONS))} in turn, "
        f"{BLOCK} solves each; every {DIFFERENTIATE_EVERY}th solve differentiated.",
        f"The first row is after every size was met. torch {torch.__version__}, one thread, {platform.machine()}.",
    ]
    begin = time.monotonic()
    for index in range(len(SOLVERS) * len(BATCHES) * len(HORIZONS)):
        solve_block(model, index, DIFFERENTIATE_EVERY)
    rows: list[dict[str, object]] = []
    for solved in range(0, args.solves + 1, rows_every * BLOCK):
        if solved:
            for index in range(solved // BLOCK - rows_every, solved // BLOCK):
                solve_block(model, index, BLOCK)
        memory = resident_mebibytes()
        growth = memory - float(str(rows[0]["resident_mib"])) if rows else 0.0
        seconds = round(time.monotonic() - begin)
        rows.append(dict(zip(HEADINGS, (solved, memory, growth, living_tensors(), seconds), strict=True)))
        table = save_table(rows, HEADINGS, notes, args.out, "memory")
        print(f"{solved} solves: {memory:.1f} MiB resident, {growth:+.1f} since the first row", flush=True)
    print(table)


if __name__ == "__main__":
    main()
