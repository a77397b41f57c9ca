"""
Time to plan and to differentiate the plan: the closed-form solver, Theseus and MPPI on one latent problem.

    python benchmarks/solvers.py --out results/benchmarks

Prints a table and saves it as ``solvers.md`` and ``solvers.csv``. Everything runs in one process and one thread, the
methods in turn; times are medians of processor time, which on an idle machine is the time on the clock and on a busy
one leaves out the waiting. Weights are random, which does not matter for the times; the objective reached compares the
methods on that random model only.
"""

from __future__ import annotations

import argparse
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from tables import medians, save_table
from torch import Tensor

from difftori_gym.models import LatentModel, LatentObjective, latent_return, rollout_prior
from difftori_gym.trajopt import Objective, TrajectoryOptimizer

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Couldn't import skparse.cholmod")
    import theseus

LATENT_DIM, DISCOUNT = 50, 0.99
ITERATIONS, DIFFERENTIATED, STEP_SIZE, DAMPING = 10, 5, 1e-3, 1e-2
# name -> width of the networks, horizon, action dimension
SIZES = {"small": (256, 3, 2), "paper": (512, 5, 6)}
BATCHES = (1, 8, 64)
# At paper size and batch 64 one plan of MPPI takes a minute: left out.
MPPI_LIMIT = {"small": 64, "paper": 8}
HEADINGS = {
    "size": "size",
    "batch": "batch",
    "method": "method",
    "plan_ms": "plan, ms",
    "differentiate_ms": "plan and differentiate, ms",
    "objective": "objective",
    "plan_vs_theseus": "plan: times faster than theseus",
    "plan_vs_released": "than released form",
    "plan_vs_mppi": "than mppi",
    "differentiate_vs_theseus": "differentiate: times faster than theseus",
    "differentiate_vs_released": "than released form",
    "rounds": "rounds",
}
REFERENCES = {"theseus": "theseus", "released": "theseus, released form", "mppi": "mppi"}

Plan = Callable[[bool], Tensor]
"""Plan, with a graph or without: differentiable actions ``[B, H, A]``, or the actions to execute."""


@dataclass
class Problem:
    """A latent model with random weights, latent states, and the rollout of the policy prior as the start."""

    model: LatentModel
    z0: Tensor
    start: Tensor

    @property
    def objective(self) -> LatentObjective:
        return LatentObjective(self.model, self.z0, discount=DISCOUNT)

    def objective_by_autograd(self, actions: Tensor) -> Tensor:
        return latent_return(self.model, self.z0, actions, discount=DISCOUNT)


def make_problem(size: str, batch: int) -> Problem:
    width, horizon, action_dim = SIZES[size]
    torch.manual_seed(0)
    arch = (width, width)
    model = LatentModel(
        LATENT_DIM, action_dim, dynamics_arch=arch, reward_arch=arch, qf_arch=arch, pi_arch=arch, n_critics=2
    )
    for parameter in model.parameters():  # heads start at zero, where there is nothing to optimise
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    z0 = torch.randn(batch, LATENT_DIM)
    return Problem(model, z0, rollout_prior(model, z0, horizon))


def seam_plan(problem: Problem, objective: Objective, optimizer: TrajectoryOptimizer) -> Plan:
    planner = optimizer.replace(backward_mode="none")

    def plan(differentiable: bool) -> Tensor:
        solution = (optimizer if differentiable else planner)(objective, problem.start)
        return solution.actions if differentiable else solution.best_actions

    return plan


def released_plan(problem: Problem) -> Plan:
    """Theseus as DiffTORI's released code calls it: AutoDiffCostFunction, one layer for all calls, the last iterate."""
    batch, horizon, action_dim = problem.start.shape
    variable = theseus.Vector(dof=horizon * action_dim, name="plan")
    state = theseus.Vector(dof=LATENT_DIM, name="state")

    def residual(optim_vars: tuple[theseus.Variable], aux_vars: tuple[theseus.Variable]) -> Tensor:
        actions = optim_vars[0].tensor.reshape(-1, horizon, action_dim).clamp(-1.0, 1.0)
        return (1000.0 - latent_return(problem.model, aux_vars[0].tensor, actions, discount=DISCOUNT))[:, None]

    nonlinear = theseus.Objective()
    nonlinear.add(theseus.AutoDiffCostFunction([variable], residual, 1, aux_vars=[state], autograd_mode="vmap"))
    layer = theseus.TheseusLayer(
        theseus.LevenbergMarquardt(
            nonlinear,
            max_iterations=ITERATIONS,
            step_size=STEP_SIZE,
            abs_err_tolerance=0.0,
            rel_err_tolerance=0.0,
        )
    )
    settings = {"damping": DAMPING, "backward_num_iterations": DIFFERENTIATED}

    def plan(differentiable: bool) -> Tensor:
        mode = "truncated" if differentiable else "unroll"
        with torch.set_grad_enabled(differentiable):
            found, _ = layer.forward(
                {"plan": problem.start.flatten(1), "state": problem.z0},
                optimizer_kwargs={**settings, "backward_mode": mode},
            )
        actions: Tensor = found["plan"].reshape(batch, horizon, action_dim)
        return actions

    return plan


def make_plans(problem: Problem) -> dict[str, Plan]:
    lm = TrajectoryOptimizer(
        max_iterations=ITERATIONS,
        step_size=STEP_SIZE,
        damping=DAMPING,
        backward_num_iterations=DIFFERENTIATED,
    )
    by_autograd = problem.objective_by_autograd
    mppi = TrajectoryOptimizer(solver="mppi", max_iterations=6, num_samples=512)
    return {
        "lm": seam_plan(problem, problem.objective, lm),
        "lm, autograd only": seam_plan(problem, by_autograd, lm.replace(bounds="clamp")),
        "theseus": seam_plan(problem, by_autograd, lm.replace(solver="theseus", bounds="clamp")),
        "theseus, released form": released_plan(problem),
        "mppi": seam_plan(problem, by_autograd, mppi),
    }


def differentiate(problem: Problem, plan: Plan) -> None:
    loss = plan(True).square().mean()
    torch.autograd.grad(loss, list(problem.model.parameters()), allow_unused=True)


def measure(size: str, batch: int, seconds: float, max_rounds: int) -> list[dict[str, object]]:
    """Rows of one problem: its start, then every method."""
    problem = make_problem(size, batch)
    plans = make_plans(problem)
    if batch > MPPI_LIMIT[size]:
        del plans["mppi"]
    jobs: dict[str, Callable[[], object]] = {}
    for method, plan in plans.items():
        jobs[f"plan {method}"] = partial(plan, False)
        if method != "mppi":
            jobs[f"differentiate {method}"] = partial(differentiate, problem, plan)
    times, rounds = medians(jobs, seconds, max_rounds)

    with torch.no_grad():
        rows: list[dict[str, object]] = [
            {
                "size": size,
                "batch": batch,
                "method": "start",
                "objective": problem.objective(problem.start).mean().item(),
            }
        ]
        for method, plan in plans.items():
            row: dict[str, object] = {"size": size, "batch": batch, "method": method, "rounds": rounds}
            row["objective"] = problem.objective(plan(False).clamp(-1, 1)).mean().item()
            for what in ("plan", "differentiate"):
                if f"{what} {method}" in times:
                    row[f"{what}_ms"] = own = times[f"{what} {method}"]
                    for column, reference in REFERENCES.items():
                        if f"{what} {reference}" in times:
                            row[f"{what}_vs_{column}"] = times[f"{what} {reference}"] / own
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for solvers.md and .csv")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--seconds", type=float, default=15.0, help="measuring time per size and batch, about")
    parser.add_argument("--rounds", type=int, default=50, help="greatest number of rounds")
    args = parser.parse_args()

    torch.set_num_threads(1)
    sizes = "; ".join(f"{name}: width {w}, H {h}, A {a}" for name, (w, h, a) in SIZES.items())
    notes = [
        f"Latent {LATENT_DIM}; {sizes}. Random weights, float32.",
        "One process, one thread; medians of interleaved rounds, processor time.",
        f"lm, Theseus: {ITERATIONS} iterations, {DIFFERENTIATED} differentiated, step {STEP_SIZE}, damping {DAMPING}.",
        "mppi: 512 samples, 6 iterations.",
        f"torch {torch.__version__}, theseus-ai {version('theseus-ai')}, {platform.machine()}.",
    ]
    rows: list[dict[str, object]] = []
    table = ""
    for size in args.sizes:
        for batch in args.batches:
            rows += measure(size, batch, args.seconds, args.rounds)
            table = save_table(rows, HEADINGS, notes, args.out, "solvers")
            print(f"measured {size}, batch {batch}", flush=True)
    print(table)


if __name__ == "__main__":
    main()
