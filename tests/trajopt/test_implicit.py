"""Differentiation by the implicit function theorem: right at a maximum, refused elsewhere, dense and matrix-free."""

import gc

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer, implicit
from difftori_gym.trajopt.implicit import conjugate_gradient

NEWTON = TrajectoryOptimizer(solver="newton", max_iterations=30, backward_mode="implicit")
PATHS = ["dense", "matrix-free"]


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    monkeypatch.setattr(implicit, "DENSE_LIMIT", 64 if request.param == "dense" else 0)


class Quadratic:
    """b . a - a M a / 2 per sample, all of it learnable; the maximum in the box has a known derivative."""

    def __init__(self, batch=3, n=4, dtype=torch.float64, reach=2.5):
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(batch, n, n, generator=generator, dtype=dtype)
        self.matrix = (root @ root.mT + 0.5 * torch.eye(n, dtype=dtype)).requires_grad_()
        self.b = (reach * torch.randn(batch, n, generator=generator, dtype=dtype)).requires_grad_()
        self.start = torch.zeros(batch, n // 2, 2, dtype=dtype)

    def __call__(self, actions):
        a = actions.flatten(1)
        return (self.b * a).sum(1) - 0.5 * torch.einsum("bi,bij,bj->b", a, self.matrix, a)

    def jacobian(self, actions):
        """d actions / d b: the inverse of the block of the actions that are not at a wall."""
        free = actions.detach().flatten(1).abs() < 1
        blocks = self.matrix.detach().where(free[:, :, None] & free[:, None], torch.eye(free.shape[1]).double())
        return blocks.inverse() * free[:, :, None] * free[:, None]


def test_the_derivative_of_a_quadratic_is_known(path):
    problem = Quadratic()
    actions = NEWTON(problem, problem.start).actions
    at_wall = actions.abs() == 1
    assert at_wall.any()
    assert not at_wall.all()
    rows = [torch.autograd.grad(actions.flatten(1)[:, i].sum(), problem.b, retain_graph=True)[0] for i in range(4)]
    torch.testing.assert_close(torch.stack(rows, 1), problem.jacobian(actions), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("bounds", [None, "project"])
def test_the_derivative_is_that_of_the_maximum(latent_problem, finite_differences, bounds, path):
    problem = latent_problem(batch=4, horizon=3, seed=3)
    objective, penalty = problem.objective, 0.02 if bounds == "project" else 0.5
    problem.objective = lambda actions: objective(actions) - penalty * actions.square().sum(dim=(1, 2))
    optimizer = NEWTON.replace(bounds=bounds)
    solution = optimizer(problem.objective, problem.start)
    assert solution.stationary.all()
    if bounds == "project":
        assert (solution.actions.abs() == 1).any()
        assert (solution.actions.abs() < 1).any()
    gradients = problem.gradients(solution.actions)
    assert gradients["z0"].abs().max() > 0
    finite_differences(
        problem, gradients, lambda: optimizer(problem.objective, problem.start).actions.detach(), epsilon=1e-5
    )


@pytest.mark.parametrize("solver", ["lm", "adam", "newton", "theseus"])
def test_every_solver_has_it(solver):
    bounds = "project"
    if solver == "theseus":
        pytest.importorskip("theseus")
        bounds = None
    problem = Quadratic(n=2)
    step = 0.5 if solver == "adam" else 1e-3
    optimizer = TrajectoryOptimizer(
        solver=solver, backward_mode="implicit", max_iterations=200, step_size=step, damping=5.0, bounds=bounds
    )
    solution = optimizer(problem, problem.start)
    assert solution.stationary.tolist() == [True] * 3
    assert (solution.stationarity < 1e-3).all()
    expected = NEWTON.replace(bounds=bounds)(problem, problem.start)
    weights = torch.randn(3, 1, 2, dtype=torch.float64)
    leaves = [problem.b, problem.matrix]
    found = torch.autograd.grad((weights * solution.actions).sum(), leaves)
    for one, other in zip(found, torch.autograd.grad((weights * expected.actions).sum(), leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    without = optimizer.replace(backward_mode="none")(problem, problem.start)
    for name in ("actions", "best_actions", "values", "history", "failed"):
        assert torch.equal(getattr(solution, name), getattr(without, name))
    assert without.stationarity is None
    assert without.stationary is None


def test_a_corner_does_not_move(path):
    slopes = torch.tensor([[[2.0, -1.0]]], dtype=torch.float64, requires_grad=True)
    solution = NEWTON(lambda a: (slopes * a).sum(dim=(1, 2)), torch.zeros(1, 1, 2, dtype=torch.float64))
    assert solution.stationary.all()
    assert solution.stationarity == 0
    (gradient,) = torch.autograd.grad(solution.actions.sum(), slopes)
    assert torch.equal(gradient, torch.zeros_like(slopes))


def test_what_is_not_stationary_is_flagged_and_gets_no_gradient(path):
    # Sample 0 has arrived; 1 is on its way; 2 stands on a minimum, 3 on a saddle, 4 on a plain; 5 is broken.
    b = torch.full((6, 1, 2), 0.25, dtype=torch.float64, requires_grad=True)
    curvature = torch.tensor([[1, 1], [1, 1], [-1, -1], [1, -1], [0, 0], [1, 1]], dtype=torch.float64)[:, None]
    offset = torch.tensor([0, 0, 0, 0, 0, torch.nan], dtype=torch.float64)
    start = torch.full((6, 1, 2), 0.25, dtype=torch.float64)
    start[1] = 0.3

    def objective(actions):
        return -0.5 * (curvature * (actions - b).square()).sum(dim=(1, 2)) + offset

    solution = NEWTON.replace(max_iterations=0)(objective, start)
    assert solution.stationary.tolist() == [True, False, False, False, False, False]
    assert solution.stationarity[:2].tolist() == pytest.approx([0.0, 0.05 * 2**0.5])
    assert solution.stationarity[2:5].isinf().all()
    assert torch.equal(solution.actions, start)
    (gradient,) = torch.autograd.grad(solution.actions.sum(), b)
    assert torch.equal(gradient[0], torch.ones(1, 2, dtype=torch.float64))
    assert torch.equal(gradient[1:], torch.zeros(5, 1, 2, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_stationarity_does_not_depend_on_the_scale_of_the_objective(path, scale):
    problem = Quadratic()
    start = 0.1 + problem.start
    once = NEWTON.replace(max_iterations=0)
    expected, found = once(problem, start), once(lambda a: scale * problem(a), start)
    torch.testing.assert_close(found.stationarity, expected.stationarity, rtol=1e-6, atol=0)


def test_the_tolerance_decides():
    problem = Quadratic()
    distance = NEWTON.replace(max_iterations=0)(problem, problem.start).stationarity
    for factor, stationary in ((0.99, False), (1.01, True)):
        optimizer = NEWTON.replace(max_iterations=0, stationarity_tolerance=factor * float(distance.max()))
        assert bool(optimizer(problem, problem.start).stationary.all()) == stationary


def test_float32(path):
    problem = Quadratic(dtype=torch.float32)
    solution = NEWTON(problem, problem.start)
    assert solution.stationary.all()
    rows = [
        torch.autograd.grad(solution.actions.flatten(1)[:, i].sum(), problem.b, retain_graph=True)[0] for i in range(4)
    ]
    problem.matrix = problem.matrix.detach().double()
    torch.testing.assert_close(torch.stack(rows, 1).double(), problem.jacobian(solution.actions), rtol=1e-3, atol=1e-3)


def test_both_paths_agree_beyond_the_limit(latent_problem, monkeypatch):
    problem = latent_problem(batch=3, horizon=11, action_dim=6)
    objective = problem.objective
    problem.objective = lambda actions: objective(actions) - 0.1 * actions.square().sum(dim=(1, 2))
    optimizer = TrajectoryOptimizer(max_iterations=150, backward_mode="implicit")
    gradients = []
    for limit in (1000, implicit.DENSE_LIMIT):
        monkeypatch.setattr(implicit, "DENSE_LIMIT", limit)
        solution = optimizer(problem.objective, problem.start)
        assert solution.stationary.all()
        gradients.append(problem.gradients(solution.actions))
    assert implicit.DENSE_LIMIT < 66
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-6, atol=1e-9)


def test_the_start_gets_no_gradient(latent_problem):
    problem = latent_problem()
    actions = NEWTON(problem.objective, problem.start).actions
    assert torch.autograd.grad(actions.sum(), problem.start, allow_unused=True) == (None,)


def test_gradients_may_be_asked_for_twice_and_under_no_grad(path):
    problem = Quadratic()
    with torch.no_grad():
        actions = NEWTON(problem, problem.start).actions
    first, second = (torch.autograd.grad(actions.sum(), problem.b, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    actions.sum().backward()
    assert torch.equal(problem.b.grad, first)


def test_several_starts_differentiate_the_best():
    # Two hills, of which the higher one moves with its centre.
    centre = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)

    def hills(actions):
        a = actions[:, 0, 0]
        return torch.exp(-((a + 0.5) ** 2) / 0.02) + 2.0 * torch.exp(-((a - centre) ** 2) / 0.02)

    start = torch.full((1, 1, 1), -0.45, dtype=torch.float64)
    for solver in ("adam", "newton"):
        optimizer = NEWTON.replace(solver=solver, max_iterations=100, step_size=0.05)
        for candidates, expected in ((None, 0.0), (torch.full((1, 1, 1, 1), 0.4, dtype=torch.float64), 1.0)):
            solution = optimizer(hills, start, candidates=candidates)
            assert solution.stationary.all()
            (gradient,) = torch.autograd.grad(solution.actions.sum(), centre)
            torch.testing.assert_close(gradient.item(), expected, rtol=0, atol=1e-6)


def test_nothing_is_kept_without_the_collector(path):
    problem = Quadratic(batch=2)

    def live():
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())

    def once():
        torch.autograd.grad(NEWTON.replace(max_iterations=3)(problem, problem.start).actions.sum(), problem.b)

    once()
    gc.collect()
    gc.disable()
    try:
        before = live()
        for _ in range(10):
            once()
        assert live() == before
    finally:
        gc.enable()


def test_conjugate_gradients_solve_and_tell_what_they_cannot():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(4, 6, 6, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + torch.eye(6)
    matrix[2] -= 3.0 * torch.eye(6)  # no longer positive definite
    matrix[3, 0, 0] = torch.nan
    right = torch.randn(4, 6, generator=generator, dtype=torch.float64) * torch.tensor([[1.0], [1e-200], [1.0], [1.0]])
    found, solved = conjugate_gradient(lambda x: (matrix @ x[:, :, None]).squeeze(2), right)
    assert solved.tolist() == [True, True, False, False]
    expected = torch.linalg.solve(matrix[:2], right[:2])
    torch.testing.assert_close(found[0], expected[0], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[1] * 1e200, expected[1] * 1e200, rtol=1e-8, atol=1e-10)
    zero, solved = conjugate_gradient(lambda x: x, torch.zeros(1, 3))
    assert solved.all()
    assert torch.equal(zero, torch.zeros(1, 3))
