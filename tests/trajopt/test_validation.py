"""Starts outside the box, and solvers of a user's own: what is refused, and that the message says what to do."""

import pickle
from dataclasses import dataclass

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer, newton
from difftori_gym.trajopt.iterates import BROKEN, IterateRecord, finite_start
from difftori_gym.trajopt.validation import ROUNDING, check_start

SOLVERS = ["lm", "adam", "newton", "mppi", "cem"]


def hill(actions):
    return -(actions - 0.25).square().sum(dim=(1, 2))


@pytest.mark.parametrize("bounds", ["project", "clamp"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("number", [1.001, -1.5, 1e5])
def test_a_start_outside_the_box_is_refused(solver, bounds, number):
    start = torch.zeros(2, 3, 1)
    start[1, 2, 0] = number
    optimizer = TrajectoryOptimizer(solver=solver, bounds=bounds)
    message = rf"start inside \[-1, 1\] .* bounds='{bounds}', got {number:g} at \[1, 2, 0\] and 1 such .* clamp them"
    with pytest.raises(ValueError, match=message):
        optimizer(hill, start)
    candidates = torch.stack([torch.zeros_like(start), start])
    with pytest.raises(ValueError, match=rf"candidates inside \[-1, 1\] .* got {number:g} at \[1, 1, 2, 0\]"):
        optimizer(hill, torch.zeros(2, 3, 1), candidates=candidates)


def test_broken_numbers_beside_it_do_not_hide_a_start_outside_the_box():
    start = torch.tensor([[[float("nan"), -1.25, 1e30]]])
    with pytest.raises(ValueError, match=r"got -1.25 at \[0, 0, 1\] and 1 such"):
        TrajectoryOptimizer(solver="lm")(hill, start)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rounding_is_no_reason(solver):
    start = torch.full((2, 1, 1), 1.0 + 0.5 * ROUNDING)
    for bounds in ("project", "clamp"):
        solution = TrajectoryOptimizer(solver=solver, bounds=bounds, max_iterations=0)(hill, start)
        assert torch.equal(solution.best_actions, torch.ones(2, 1, 1))
        assert solution.num_failed == 0


@pytest.mark.parametrize("solver", [*SOLVERS, "theseus"])
def test_without_a_box_any_finite_start_goes(solver):
    if solver == "theseus":
        pytest.importorskip("theseus")
    start = torch.full((2, 1, 1), 3.0)
    solution = TrajectoryOptimizer(solver=solver, bounds=None, max_iterations=2)(hill, start)
    assert solution.num_failed == 0
    assert solution.best_actions.abs().max() <= 1


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e30, BROKEN])
def test_broken_numbers_in_a_start_are_data(number):
    start = torch.full((3, 1, 1), 0.5)
    start[1] = number
    for solver in SOLVERS:
        for bounds in ("project", "clamp"):
            solution = TrajectoryOptimizer(solver=solver, bounds=bounds, max_iterations=0)(hill, start)
            assert solution.failed.tolist() == [False, True, False]
            assert solution.best_actions.flatten().tolist() == [0.5, 0.0, 0.5]
    with_candidates = TrajectoryOptimizer(max_iterations=0)(hill, torch.full((3, 1, 1), -0.25), candidates=start[None])
    assert with_candidates.num_failed == 0
    assert with_candidates.best_actions.flatten().tolist() == [0.5, -0.25, 0.5]


def test_on_another_device_the_box_is_not_asked_for():
    start = torch.full((1, 1, 1), 3.0, device="meta")
    check_start(start, "project")  # would have to read a number otherwise
    with pytest.raises(ValueError, match="shape"):
        check_start(start[0], "project")


def test_candidates_need_the_dtype_of_the_start():
    with pytest.raises(ValueError, match=r"dtype torch.float32, got \[1, 2, 3, 1\] torch.float64: .* cast"):
        TrajectoryOptimizer(solver="lm")(hill, torch.zeros(2, 3, 1), candidates=torch.zeros(1, 2, 3, 1).double())


def keep_the_start(objective, actions, settings):
    """The least a solver can do."""
    start, failed = finite_start(actions, settings.bounds)
    record = IterateRecord(failed)
    with torch.no_grad():
        record.add(start, objective(start))
    return record.solution(objective, start, settings.bounds)


@dataclass(frozen=True)
class Lattice:
    """Values ``points`` constant plans and keeps the best: a solver with a setting of its own."""

    points: int = 5

    def __call__(self, objective, actions, settings):
        start, failed = finite_start(actions, settings.bounds)
        record = IterateRecord(failed)
        with torch.no_grad():
            for value in torch.linspace(-1, 1, self.points).tolist():
                plan = torch.full_like(start, value)
                record.add(plan, objective(plan))
        return record.solution(objective, start.detach(), settings.bounds)


def test_a_function_is_a_solver():
    start = torch.full((2, 3, 1), 0.5)
    solution = TrajectoryOptimizer(solver=keep_the_start)(hill, start)
    assert torch.equal(solution.best_actions, start)
    solution = TrajectoryOptimizer(solver=Lattice(points=9))(hill, start)
    assert torch.equal(solution.best_actions, torch.full((2, 3, 1), 0.25))


def test_a_solver_of_ones_own_has_several_starts_and_the_implicit_derivative():
    centre = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)
    optimizer = TrajectoryOptimizer(solver=keep_the_start, num_starts=2, backward_mode="implicit")
    solution = optimizer(
        lambda actions: -(actions - centre).square().sum(dim=(1, 2)),
        torch.zeros(1, 1, 1, dtype=torch.float64),
        candidates=torch.full((1, 1, 1, 1), 0.25, dtype=torch.float64),
    )
    assert solution.stationary.all()
    (gradient,) = torch.autograd.grad(solution.actions.sum(), centre)
    torch.testing.assert_close(gradient.item(), 1.0)


@pytest.mark.parametrize("solver", [keep_the_start, Lattice(3)])
def test_settings_with_a_solver_of_ones_own_are_compared_and_hashed(solver):
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=3)
    assert optimizer == optimizer.replace(max_iterations=3)
    assert optimizer != optimizer.replace(solver="lm")
    assert hash(optimizer) == hash(optimizer.replace(max_iterations=3))


def test_settings_with_a_function_are_pickled_by_its_name():
    # The module of a test has no name to be imported by, that of a user's solver does.
    optimizer = TrajectoryOptimizer(solver=newton.solve, max_iterations=3)
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert torch.equal(
        optimizer(hill, torch.zeros(1, 1, 1)).actions,
        optimizer.replace(solver="newton")(hill, torch.zeros(1, 1, 1)).actions,
    )


@pytest.mark.parametrize("solver", ["sgd", 3, None, dict, Lattice])
def test_what_is_no_solver_is_refused(solver):
    with pytest.raises(ValueError, match=r"solver to be one of 'lm', .* got .*: or hand over a function"):
        TrajectoryOptimizer(solver=solver)


def test_a_solver_has_to_be_hashable():
    @dataclass
    class Mutable:
        points: int = 5

        def __call__(self, objective, actions, settings): ...

    with pytest.raises(ValueError, match=r"hashable, got .* frozen=True"):
        TrajectoryOptimizer(solver=Mutable())


@pytest.mark.parametrize(
    ("field", "tensor", "message"),
    [
        ("actions", torch.zeros(2, 3), r"actions of shape \[2, 3, 1\], got \[2, 3\]"),
        ("best_actions", torch.zeros(1, 3, 1), r"best_actions of shape \[2, 3, 1\], got \[1, 3, 1\]"),
        ("values", torch.zeros(()), r"values of shape \[2\], got \[\]"),
        ("failed", torch.zeros(3, dtype=torch.bool), r"failed of shape \[2\], got \[3\]"),
        ("history", torch.zeros(2), r"history of shape \[2, iterations \+ 1\], got \[2\]"),
    ],
)
def test_what_a_solver_of_ones_own_returns_is_checked(field, tensor, message):
    def solver(objective, actions, settings):
        solution = keep_the_start(objective, actions, settings)
        object.__setattr__(solution, field, tensor)
        return solution

    with pytest.raises(ValueError, match=message):
        TrajectoryOptimizer(solver=solver)(hill, torch.zeros(2, 3, 1))


def test_a_solver_of_ones_own_returns_a_solution():
    with pytest.raises(ValueError, match=r"return a Solution, got Tensor: .*IterateRecord"):
        TrajectoryOptimizer(solver=lambda objective, actions, settings: actions)(hill, torch.zeros(2, 3, 1))
