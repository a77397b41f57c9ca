"""What holds for every problem: in the box, never worse than the start, and bad numbers stay data."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from difftori_gym.trajopt import TrajectoryOptimizer

BAD = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30]
BATCH = 3

dtypes = st.sampled_from([torch.float32, torch.float64])
steps = st.sampled_from([1e-6, 1e-3, 0.1, 10.0])
dampings = st.sampled_from([1e-6, 1e-2, 10.0])
modes = st.sampled_from(["unroll", "truncated", "none"])


class Watched:
    """An objective that remembers where it was asked and what it answered."""

    def __init__(self, objective: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.objective = objective
        self.visited: list[torch.Tensor] = []

    def __call__(self, actions: torch.Tensor) -> torch.Tensor:
        self.visited.append(actions.detach().clone())
        return self.objective(actions)

    def broken(self) -> torch.Tensor:
        """Samples with a value or gradient that is not finite, or a step that overflows, at some visited iterate."""
        broken = torch.zeros(BATCH, dtype=torch.bool)
        for actions in self.visited:
            point = actions.requires_grad_()
            value = self.objective(point)
            (gradient,) = torch.autograd.grad(value.sum(), point)
            broken |= ~value.isfinite() | ~gradient.isfinite().flatten(1).all(1)
        return broken


def assert_finite_and_inside(solution, bounds):
    assert solution.best_actions.isfinite().all()
    assert solution.best_actions.abs().max() <= 1
    assert solution.actions.isfinite().all()
    if bounds == "project":
        assert solution.actions.abs().max() <= 1


@given(
    place=st.sampled_from(["z0", "start", "dynamics.0.weight", "dynamics.2.bias", "reward.0.weight", "value.2.weight"]),
    bad=st.sampled_from(BAD),
    position=st.integers(0, 10**6),
    bounds=st.sampled_from([None, "clamp", "project"]),
    mode=modes,
    dtype=dtypes,
    step=steps,
)
def test_bad_numbers_give_finite_actions_and_a_true_count(
    latent_problem, place, bad, position, bounds, mode, dtype, step
):
    problem = latent_problem(batch=BATCH, dtype=dtype)
    optimizer = TrajectoryOptimizer(
        max_iterations=3, step_size=step, bounds=bounds, backward_mode=mode, backward_num_iterations=2
    )
    tensor = {**problem.captured, "start": problem.start}[place]
    position %= tensor.numel()
    tensor.data.view(-1)[position] = bad

    objective = Watched(problem.objective)
    solution = optimizer(objective, problem.start)
    assert_finite_and_inside(solution, bounds)
    expected = objective.broken() | ~problem.start.detach().isfinite().flatten(1).all(1)
    assert solution.num_failed == expected.sum()


@given(
    place=st.sampled_from(["z0", "start"]),
    bad=st.sampled_from(BAD),
    sample=st.integers(0, BATCH - 1),
    bounds=st.sampled_from([None, "clamp", "project"]),
    dtype=dtypes,
)
def test_a_broken_sample_changes_nothing_for_its_neighbours(latent_problem, place, bad, sample, bounds, dtype):
    problem = latent_problem(batch=BATCH, dtype=dtype)
    optimizer = TrajectoryOptimizer(max_iterations=3, bounds=bounds)
    clean = optimizer(problem.objective, problem.start)
    {"z0": problem.z0, "start": problem.start}[place].data[sample].fill_(bad)
    solution = optimizer(problem.objective, problem.start)
    others = [i for i in range(BATCH) if i != sample]
    for name in ("actions", "best_actions", "values", "history"):
        assert torch.equal(getattr(solution, name)[others], getattr(clean, name)[others])
    assert solution.num_failed <= 1
    if bad != bad:
        assert solution.num_failed == 1


@pytest.mark.parametrize("bounds", [None, "clamp", "project"])
@pytest.mark.parametrize("bad", BAD[:3])
@pytest.mark.parametrize("mode", ["unroll", "truncated"])
def test_a_broken_sample_does_not_reach_the_shared_gradient(latent_problem, bounds, bad, mode):
    problem = latent_problem(batch=BATCH)
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    optimizer = TrajectoryOptimizer(max_iterations=4, damping=3.0, bounds=bounds, backward_mode=mode)
    solution = optimizer(lambda actions: problem.objective(actions) + offsets, problem.start)
    assert solution.num_failed == 1
    assert torch.equal(solution.actions[1], problem.start[1])

    healthy = problem.rows(torch.tensor([0, 2]))
    weights = torch.randn(BATCH, 2, 2, dtype=torch.float64)
    parameters = list(problem.networks.parameters())
    found = torch.autograd.grad((weights * solution.actions).sum(), parameters)
    alone = optimizer(healthy.objective, healthy.start).actions
    expected = torch.autograd.grad((weights[[0, 2]] * alone).sum(), parameters)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@given(
    seed=st.integers(0, 10**6),
    solver=st.sampled_from(["lm", "mppi"]),
    bounds=st.sampled_from([None, "clamp", "project"]),
    dtype=dtypes,
    step=steps,
    damping=dampings,
    shape=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)
def test_the_best_is_never_worse_than_a_start_in_the_box(
    latent_problem, seed, solver, bounds, dtype, step, damping, shape
):
    problem = latent_problem(*shape, dtype=dtype, seed=seed)
    optimizer = TrajectoryOptimizer(
        solver=solver, max_iterations=4, step_size=step, damping=damping, bounds=bounds, num_samples=8, num_elites=4
    )
    solution = optimizer(problem.objective, problem.start)
    assert_finite_and_inside(solution, bounds)
    assert solution.num_failed == 0
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    start, best = problem.objective(problem.start), problem.objective(solution.best_actions)
    assert (solution.values >= solution.history[:, 0]).all()
    assert (best >= start - tolerance).all()
    torch.testing.assert_close(solution.values, best, rtol=tolerance, atol=tolerance, check_dtype=True)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1.0, 5.0, 1e6]), step=steps, damping=dampings, dtype=dtypes)
def test_projection_keeps_every_iterate_in_the_box(latent_problem, seed, scale, step, damping, dtype):
    problem = latent_problem(batch=BATCH, dtype=dtype, seed=seed)
    objective = Watched(problem.objective)
    optimizer = TrajectoryOptimizer(max_iterations=4, step_size=step, damping=damping)
    solution = optimizer(objective, scale * problem.start)
    assert all(actions.abs().max() <= 1 for actions in objective.visited)
    assert_finite_and_inside(solution, "project")
