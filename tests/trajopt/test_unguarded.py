"""Adam's two ways through an ascent, with and without a look at every number, are one."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer, adam

ITERATIONS = 15
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


def solve(hill, bounds="project"):
    optimizer = TrajectoryOptimizer(num_starts=1, max_iterations=ITERATIONS, bounds=bounds, backward_mode="none")
    return optimizer(hill, torch.zeros_like(hill.peaks))


@pytest.fixture
def guarded(monkeypatch):
    def solution(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(adam, "_is_unguarded", lambda *_: False)
            return solve(*args, **kwargs)

    return solution


@pytest.mark.parametrize("bounds", ["project", None])
def test_without_guards_the_numbers_are_the_same(guarded, bounds):
    hill = Hill()
    found, expected = solve(hill, bounds), guarded(Hill(), bounds)
    assert hill.calls == ITERATIONS
    assert found.num_failed == 0
    for field in FIELDS:
        assert torch.equal(getattr(found, field), getattr(expected, field)), field


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e200])
@pytest.mark.parametrize("call", [1, 3, ITERATIONS - 1])
def test_a_broken_number_is_met_with_guards(guarded, call, number):
    hill = Hill(call, number)
    found, expected, whole = solve(hill), guarded(Hill(call, number)), solve(Hill())
    assert hill.calls == 2 * ITERATIONS
    assert found.failed.tolist() == [False, True, False]
    assert torch.isfinite(found.actions).all()
    assert torch.equal(found.best_actions[[0, 2]], whole.best_actions[[0, 2]])
    for field in FIELDS:
        torch.testing.assert_close(getattr(found, field), getattr(expected, field), rtol=0, atol=0, equal_nan=True)


def test_the_start_keeps_its_graph_where_the_caller_has_switched_graphs_off():
    hill = Hill()
    start = torch.zeros_like(hill.peaks).requires_grad_()
    optimizer = TrajectoryOptimizer(num_starts=1, max_iterations=2, step_size=0.1, backward_mode="unroll")
    with torch.no_grad():
        solution = optimizer(hill.__call__, start)
    (gradient,) = torch.autograd.grad(solution.actions.sum(), start)
    assert (gradient != 0).any()
