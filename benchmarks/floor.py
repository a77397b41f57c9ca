"""
What the arithmetic of a plan costs at least: operations, bytes, and the time of its matrix products alone.

    python benchmarks/floor.py --out results/benchmarks

One iteration of a planner is a forward and a backward pass through H steps of dynamics and reward, the prior and two
values. The floor is the time of exactly these matrix products, on tensors that lie ready. Prints a table and saves it
as ``floor.md`` and ``floor.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from latent_problem import SIZES, Problem, make_problem
from tables import Job, machine, medians, save_table
from torch import Tensor, nn

from difftori_gym.trajopt import TrajectoryOptimizer

BATCHES = (1, 16, 128, 1024)
ITERATIONS = 20
HEADINGS = {
    "size": "size",
    "batch": "batch",
    "mflop": "MFLOP per iteration",
    "mb": "MB read and written by the products",
    "products_ms": "products alone, ms",
    "gflops": "GFLOP/s of the products",
    "gradient_ms": "value and gradient, ms",
    "gradient_ratio": "times the floor",
    "plan_ms": f"lm, per iteration of {ITERATIONS}, ms",
    "plan_ratio": "times the floor",
}


def products(problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
    """Left and right factors of every matrix product of one value and gradient."""
    model, (batch, horizon, _) = problem.model, problem.start.shape
    calls = [(model.dynamics, batch)] * horizon + [(model.reward, batch * horizon), (model.actor, batch)]
    for network, rows in calls + [(member, batch) for member in model.critic.members]:
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                weight = layer.weight.detach()
                yield torch.randn(rows, layer.in_features, device=weight.device), weight.t()
                yield torch.randn(rows, layer.out_features, device=weight.device), weight


def measure(size: str, batch: int, device: torch.device, seconds: float, max_rounds: int) -> dict[str, object]:
    """Row of one problem."""
    problem = make_problem(size, batch, device)
    factors = list(products(problem))
    outputs = [torch.empty(len(left), right.shape[1], device=device) for left, right in factors]
    triples = [(left, right, out) for (left, right), out in zip(factors, outputs, strict=True)]
    flop = sum(2 * left.numel() * right.shape[1] for left, right in factors)
    numbers = sum(left.numel() + right.numel() + out.numel() for left, right, out in triples)
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=ITERATIONS, backward_mode="none")
    objective = problem.objective

    def multiply() -> None:
        with torch.inference_mode():
            for left, right, out in triples:
                torch.mm(left, right, out=out)

    jobs: dict[str, Job] = {
        "products": multiply,
        "gradient": lambda: objective.value_and_gradient(problem.start),
        "plan": lambda: optimizer(objective, problem.start),
    }
    times, _ = medians(jobs, seconds, max_rounds, device, min_rounds=5)
    floor, gradient, plan = times["products"], times["gradient"], times["plan"] / ITERATIONS
    row: dict[str, object] = dict(size=size, batch=batch, mflop=flop / 1e6, mb=4 * numbers / 1e6, products_ms=floor)
    row.update(gflops=flop / floor / 1e6, gradient_ms=gradient, gradient_ratio=gradient / floor)
    row.update(plan_ms=plan, plan_ratio=plan / floor)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"), help="folder for floor.md and .csv")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time per size and batch, about")
    parser.add_argument("--rounds", type=int, default=50, help="greatest number of rounds")
    args = parser.parse_args()

    torch.set_num_threads(1)
    notes = [f"float32. {machine(args.device)} Medians of interleaved rounds."]
    rows, table = [], ""
    for size in SIZES:
        for batch in BATCHES:
            rows.append(measure(size, batch, args.device, args.seconds, args.rounds))
            table = save_table(rows, HEADINGS, notes, args.out, "floor")
    print(table)


if __name__ == "__main__":
    main()
