"""The two ways of ``adam`` and ``lm`` through an ascent, with and without a look at every number, are one."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer, first_order

ITERATIONS = 15
SOLVERS = {
    "adam": dict(num_starts=1),
    "lm": dict(step_size=5e-3, damping=1.0),
}
FIELDS = ("actions", "best_actions", "values", "history", "failed")


class Hill:
    """Peaks inside and outside the box, with a gradient of its own that breaks for sample 1 in one iteration."""

    def __init__(self, broken_in=None, number=0.0):
        self.peaks = torch.linspace(-1.5, 1.5, 12, dtype=torch.float64).view(3, 2, 2)
        self.broken_in, self.number, self.calls = broken_in, number, 0

    def __call__(self, actions):
        return -((actions - self.peaks) ** 2).sum(dim=(1, 2)) + torch.cos(3 * actions).sum(dim=(1, 2))

    def value_and_gradient(self, actions):
        value, gradient = self(actions), 2 * (self.peaks - actions) - 3 * torch.sin(3 * actions)
        if self.calls % ITERATIONS == self.broken_in:
            gradient[1] = self.number
        self.calls += 1
        return value, gradient


def solve(solver, hill, bounds="project"):
    settings = dict(max_iterations=ITERATIONS, bounds=bounds, backward_mode="none", **SOLVERS[solver])
    optimizer = TrajectoryOptimizer(solver=solver, **settings)
    return optimizer(hill, hill.peaks * 0.65)


@pytest.fixture
def guarded(monkeypatch):
    def solution(solver, *args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(first_order, "may_look_in_the_end", lambda *_: False)
            return solve(solver, *args, **kwargs)

    return solution


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bounds", ["project", None])
def test_without_guards_the_numbers_are_the_same(guarded, bounds, solver):
    hill = Hill()
    found, expected = solve(solver, hill, bounds), guarded(solver, Hill(), bounds)
    assert (found.actions.abs() == 1).any() == (bounds == "project")
    assert hill.calls == ITERATIONS
    assert found.num_failed == 0
    for field in FIELDS:
        assert torch.equal(getattr(found, field), getattr(expected, field)), field


NAN, INF = float("nan"), float("inf")
BROKEN = [(solver, number) for solver in SOLVERS for number in (NAN, INF, -INF)] + [("adam", 1e200)]


@pytest.mark.parametrize(("solver", "number"), BROKEN)
@pytest.mark.parametrize("call", [1, 3, ITERATIONS - 1])
def test_a_broken_number_is_met_with_guards(guarded, call, solver, number):
    hill = Hill(call, number)
    found, expected, whole = solve(solver, hill), guarded(solver, Hill(call, number)), solve(solver, Hill())
    assert hill.calls == 2 * ITERATIONS
    assert found.failed.tolist() == [False, True, False]
    assert torch.isfinite(found.actions).all()
    assert torch.equal(found.best_actions[[0, 2]], whole.best_actions[[0, 2]])
    for field in FIELDS:
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=0, atol=0, equal_nan=True)


def test_a_number_that_breaks_into_a_wall_is_seen():
    # Clamped, the step of lm looks whole again: the action rests on the wall that it is pushed into.
    start = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)

    class Wall:
        def __call__(self, actions):
            return actions.sum(dim=(1, 2))

        def value_and_gradient(self, actions):
            return self(actions), torch.tensor([[[INF, 1.0]]], dtype=torch.float64)

    solution = TrajectoryOptimizer(solver="lm", max_iterations=2, backward_mode="none")(Wall(), start)
    assert solution.num_failed == 1
    assert torch.equal(solution.actions, start)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_start_keeps_its_graph_where_the_caller_has_switched_graphs_off(solver):
    hill = Hill()
    start = torch.zeros_like(hill.peaks).requires_grad_()
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=2, backward_mode="unroll", **SOLVERS[solver])
    with torch.no_grad():
        solution = optimizer(hill.__call__, start)
    (gradient,) = torch.autograd.grad(solution.actions.sum(), start)
    assert (gradient != 0).any()
