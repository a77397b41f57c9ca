"""Solving and differentiating for a long time keeps nothing."""

import gc
import weakref
from pathlib import Path

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer


def live_tensors() -> int:
    return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())


def resident_mebibytes() -> float:
    """Memory of this process; 0 where the system does not tell. Sees what only the autograd graph holds."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * 4096 / 2**20 if pages.exists() else 0.0


@pytest.mark.parametrize(
    ("solver", "mode", "solves"),
    [("lm", "none", 1000), ("lm", "truncated", 1000), ("lm", "unroll", 300), ("mppi", "truncated", 300)],
)
def test_thousands_of_solves_leave_no_tensors_without_the_collector(latent_problem, solver, mode, solves):
    problem = latent_problem(horizon=1, dtype=torch.float32)
    optimizer = TrajectoryOptimizer(
        solver=solver, max_iterations=2, backward_mode=mode, backward_num_iterations=1, num_samples=8, num_elites=4
    )

    def solve_once():
        actions = optimizer(problem.objective, problem.start).actions
        if actions.requires_grad:
            problem.gradients(actions)

    solve_once()
    gc.collect()
    gc.disable()
    try:
        tensors, memory = live_tensors(), resident_mebibytes()
        for _ in range(solves):
            solve_once()
        assert live_tensors() == tensors
        assert resident_mebibytes() - memory < 16  # one graph is about a tenth of one
    finally:
        gc.enable()


def test_theseus_leaves_no_tensors(latent_problem):
    pytest.importorskip("theseus")
    problem = latent_problem(dtype=torch.float32)
    optimizer = TrajectoryOptimizer(solver="theseus", bounds=None, max_iterations=3, backward_num_iterations=2)
    counts = []
    for _ in range(3):
        for _ in range(10):
            problem.gradients(optimizer(problem.objective, problem.start).actions)
        gc.collect()
        counts.append(live_tensors())
    assert counts[1] == counts[2]


def test_theseus_releases_the_problem_without_the_collector(latent_problem):
    pytest.importorskip("theseus")
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="theseus", bounds=None, max_iterations=3, backward_num_iterations=2)
    gc.collect()
    gc.disable()
    try:
        actions = optimizer(problem.objective, problem.start).actions
        network = weakref.ref(problem.networks)
        del problem, actions
        assert network() is None
    finally:
        gc.enable()
