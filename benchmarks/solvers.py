"""
Time and memory to plan, and to plan and differentiate: every solver, every backward mode, beside Theseus and MPPI.

    python benchmarks/solvers.py --out results/benchmarks
    python benchmarks/solvers.py --sizes paper --batches 1 128 --iterations 100 --solvers lm theseus \
        --modes none truncated --out results/benchmarks-100
    python benchmarks/solvers.py --device cuda --out results/benchmarks-gpu

Prints a table and saves it as ``solvers.md`` and ``solvers.csv``. Everything of one size and batch runs in one process,
the methods in turn. Weights are random, which does not matter for times; what the solvers reach on trained models is
told by ``benchmarks/trained_models.py``.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from latent_problem import DISCOUNT, LATENT_DIM, SIZES, Problem, Solve, make_problem, released_solve
from tables import Job, machine, medians, peak_memory, save_table

from difftori_gym.trajopt import Objective, TrajectoryOptimizer

BATCHES = (1, 16, 128, 1024)
MODES = ("none", "truncated", "unroll", "implicit")
LM = TrajectoryOptimizer(
    solver="lm", max_iterations=20, step_size=1e-3, damping=1e-2, backward_num_iterations=5, bounds="project"
)
SOLVERS = {
    "lm": LM,
    "adam": LM.replace(solver="adam", step_size=0.5),
    "newton": LM.replace(solver="newton", max_iterations=3),
    "theseus": LM.replace(solver="theseus", bounds="clamp"),
    "mppi": LM.replace(solver="mppi", max_iterations=6),
    "cem": LM.replace(solver="cem", max_iterations=6),
}
ITERATED = ("lm", "adam", "theseus")
RELEASED = "theseus, released form"
# Above these batches a method is left out: at paper size the sampling solvers would take minutes for one plan, and the
# second derivatives of the others gigabytes.
LIMITS = {
    "small": {"mppi": 16, "cem": 16, "newton": 128, "implicit": 128},
    "paper": {"mppi": 1, "cem": 1, "newton": 16, "implicit": 16},
}
HEADINGS = {
    "size": "size",
    "batch": "batch",
    "solver": "solver",
    "mode": "backward mode",
    "ms": "ms",
    "vs_released": "times faster than Theseus, released form",
    "vs_theseus": "than our Theseus back end",
    "vs_mppi": "than mppi",
    "mib": "peak MiB",
    "rounds": "rounds",
}


def solve_with(problem: Problem, objective: Objective, optimizer: TrajectoryOptimizer) -> Solve:
    def solve() -> torch.Tensor:
        generator = torch.Generator(problem.start.device).manual_seed(0)
        solution = optimizer(objective, problem.start, generator=generator)
        return solution.best_actions if optimizer.backward_mode == "none" else solution.actions

    return solve


def make_jobs(
    problem: Problem, size: str, batch: int, solvers: list[str], modes: list[str], iterations: int
) -> dict[tuple[str, str], Job]:
    """Jobs by solver and backward mode."""
    limits = LIMITS[size]
    jobs: dict[tuple[str, str], Job] = {}
    for mode in modes:
        for name in solvers:
            settings = SOLVERS[name]
            if name in ITERATED:
                settings = settings.replace(max_iterations=iterations)
            is_sampling, is_theseus = name in ("mppi", "cem"), name == "theseus"
            if batch > min(limits.get(name, batch), limits.get(mode, batch)) or (is_sampling and mode != "none"):
                continue
            if is_theseus and mode == "implicit":  # it differentiates another condition, on its Gauss-Newton matrix
                continue
            objective = problem.objective_by_autograd if is_theseus else problem.objective
            solve = solve_with(problem, objective, settings.replace(backward_mode=mode))
            jobs[name, mode] = solve if mode == "none" else partial(problem.differentiate, solve)
        if mode != "implicit":
            solve = released_solve(problem, LM.replace(backward_mode=mode, max_iterations=iterations))
            jobs[RELEASED, mode] = solve if mode == "none" else partial(problem.differentiate, solve)
    return jobs


def measure(size: str, batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """Rows of one problem."""
    problem = make_problem(size, batch, args.device)
    jobs = make_jobs(problem, size, batch, args.solvers, args.modes, args.iterations)
    named = {f"{solver} {mode}": job for (solver, mode), job in jobs.items()}
    times, rounds = medians(named, args.seconds, args.rounds, args.device)
    rows: list[dict[str, object]] = []
    for (solver, mode), job in jobs.items():
        own = times[f"{solver} {mode}"]

        def ratio(reference: str, mode: str = mode, own: float = own) -> float | None:
            return times[f"{reference} {mode}"] / own if f"{reference} {mode}" in times else None

        row: dict[str, object] = dict(size=size, batch=batch, solver=solver, mode=mode, ms=own, rounds=rounds)
        row.update(vs_released=ratio(RELEASED), vs_theseus=ratio("theseus"), vs_mppi=ratio("mppi"))
        rows.append({**row, "mib": peak_memory(job, args.device)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for solvers.md and .csv")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, default=list(SOLVERS))
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="backward modes")
    parser.add_argument("--iterations", type=int, default=LM.max_iterations, help="of lm, gradient, adam and Theseus")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time per size and batch, about")
    parser.add_argument("--rounds", type=int, default=30, help="greatest number of rounds")
    args = parser.parse_args()

    torch.set_num_threads(1)
    sizes = "; ".join(f"{name}: width {w}, H {h}, A {a}" for name, (w, h, a) in SIZES.items())
    notes = [
        f"Latent {LATENT_DIM}, discount {DISCOUNT}; {sizes}. Random weights, float32. {machine(args.device)}",
        f"lm and Theseus: {args.iterations} iterations, step size {LM.step_size}, damping {LM.damping}.",
        f"gradient and adam: {args.iterations} iterations; newton: 3; mppi and cem: 512 samples, 6 iterations.",
        f"Backward mode none: to plan. Otherwise: to plan and to differentiate a loss on the plan in all parameters;"
        f" truncated: the last {LM.backward_num_iterations} iterations.",
        "Medians of interleaved rounds; on a CPU processor time. What is not in the table was not run.",
    ]
    rows: list[dict[str, object]] = []
    table = ""
    for size in args.sizes:
        for batch in args.batches:
            rows += measure(size, batch, args)
            table = save_table(rows, HEADINGS, notes, args.out, "solvers")
            print(f"measured {size}, batch {batch}", flush=True)
    print(table)


if __name__ == "__main__":
    main()
