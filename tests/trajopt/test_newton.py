"""Newton's method: linear-quadratic problems in one step, negative curvature, walls, and its derivative."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.newton import _shift, _step_in_box

NEWTON = TrajectoryOptimizer(solver="newton", max_iterations=10)
BOUNDS = [None, "clamp", "project"]


class LinearQuadratic:
    """x' = Fx + Gu, value -sum (x Q x + u R u) - x_H P x_H, for several initial states."""

    def __init__(self, horizon=6, state_dim=3, action_dim=2, batch=4, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.horizon = horizon
        self.F, self.G = torch.eye(state_dim) + 0.3 * draw(state_dim, state_dim), 0.5 * draw(state_dim, action_dim)
        self.Q, self.R, self.P = (self._positive(draw(n, n)) for n in (state_dim, action_dim, state_dim))
        self.x0 = draw(batch, state_dim)
        self.start = torch.zeros(batch, horizon, action_dim, dtype=torch.float64)

    @staticmethod
    def _positive(matrix):
        return matrix @ matrix.T + 0.1 * torch.eye(len(matrix))

    @staticmethod
    def _form(x, matrix):
        return torch.einsum("bi,ij,bj->b", x, matrix, x)

    def objective(self, actions):
        x, cost = self.x0, torch.zeros_like(self.x0[:, 0])
        for u in actions.unbind(1):
            cost = cost + self._form(x, self.Q) + self._form(u, self.R)
            x = x @ self.F.T + u @ self.G.T
        return -cost - self._form(x, self.P)

    def riccati(self):
        value, gains = self.P, []
        for _ in range(self.horizon):
            inner = self.R + self.G.T @ value @ self.G
            gain = torch.linalg.solve(inner, self.G.T @ value @ self.F)
            value = self.Q + self.F.T @ value @ (self.F - self.G @ gain)
            gains.append(gain)
        x, actions = self.x0, []
        for gain in reversed(gains):
            actions.append(-x @ gain.T)
            x = x @ self.F.T + actions[-1] @ self.G.T
        return torch.stack(actions, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("iterations", [1, 2])
def test_a_linear_quadratic_problem_is_solved_in_one_step(seed, iterations):
    problem = LinearQuadratic(seed=seed)
    optimizer = NEWTON.replace(max_iterations=iterations, bounds=None, backward_mode="none")
    solution = optimizer(problem.objective, problem.start)
    expected = problem.riccati()
    assert expected.abs().max() > 1, "the solution should not lie in the box"
    torch.testing.assert_close(solution.actions, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(solution.history[:, -1], problem.objective(expected), rtol=1e-10, atol=0)


@pytest.mark.parametrize("seed", range(3))
def test_with_walls_a_linear_quadratic_problem_meets_the_optimality_conditions(seed):
    problem = LinearQuadratic(seed=seed)
    problem.x0 = 3.0 * problem.x0
    solution = NEWTON.replace(max_iterations=4, backward_mode="none")(problem.objective, problem.start)
    point = solution.actions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(problem.objective(point).sum(), point)
    at_wall = point.abs() == 1
    assert at_wall.any()
    assert not at_wall.all()
    torch.testing.assert_close(gradient[~at_wall], torch.zeros_like(gradient[~at_wall]), rtol=0, atol=1e-8)
    assert (gradient[at_wall] * point[at_wall] > 0).all()


def test_convergence_is_quadratic():
    # a + exp(-a) has its maximum of -(a + exp(-a)) at 0, with a third derivative.
    solution = NEWTON.replace(bounds=None, max_iterations=6, backward_mode="none")(
        lambda a: -(a + torch.exp(-a)).sum(dim=(1, 2)), torch.full((1, 1, 1), 0.7, dtype=torch.float64)
    )
    error = -solution.history[0] - 1.0
    assert (error[1:4] < 2.0 * error[:3] ** 2 + 1e-15).all()
    assert solution.actions.abs().item() < 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOUNDS)
def test_negative_curvature_is_ascended_along(dtype, bounds):
    # Starts where the objective curves upwards, between two hills; a plain Newton step would descend to a = 0.
    start = torch.tensor([0.1, -0.2], dtype=dtype).view(2, 1, 1)
    solution = NEWTON.replace(max_iterations=15, bounds=bounds, backward_mode="none")(
        lambda a: (a.square() - 2.0 * a.pow(4)).sum(dim=(1, 2)), start
    )
    torch.testing.assert_close(
        solution.best_actions.flatten(), torch.tensor([0.5, -0.5], dtype=dtype), atol=1e-4, rtol=0
    )
    assert (solution.history.diff(dim=1) >= -1e-6).all()


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("gain", [1.0, 3.0, 6.0])
def test_history_never_falls_and_rough_objectives_improve(latent_problem, bounds, gain):
    problem = latent_problem(batch=6, horizon=3, width=16)
    for parameter in problem.networks.parameters():
        parameter.data *= gain
    solution = NEWTON.replace(bounds=bounds, max_iterations=20, backward_mode="none")(problem.objective, problem.start)
    assert (solution.history.diff(dim=1) >= -1e-12).all()
    assert (solution.history[:, -1] > solution.history[:, 0]).all()
    assert solution.num_failed == 0


def test_finds_better_or_equal_optima_than_first_order_steps(latent_problem):
    problem = latent_problem(batch=32, horizon=3, width=16)
    for parameter in problem.networks.parameters():
        parameter.data *= 2.0
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=15, backward_mode="none")
    values = {s: optimizer.replace(solver=s)(problem.objective, problem.start).values for s in ("newton", "lm")}
    assert values["newton"].mean() > values["lm"].mean()


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_objectives_without_curvature_end_in_a_corner_at_any_scale(scale, dtype):
    slopes = torch.tensor([[[3.0, -6.0]], [[1e-3, 5.0]]], dtype=dtype)
    solution = NEWTON(lambda a: scale * (slopes * a).sum(dim=(1, 2)), torch.zeros(2, 1, 2, dtype=dtype))
    assert torch.equal(solution.best_actions, slopes.sign())
    assert solution.num_failed == 0


def test_the_step_in_the_box_solves_the_quadratic_program():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(50, 8, 8, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + 0.3 * torch.eye(8)
    gradient = 5.0 * torch.randn(50, 8, generator=generator, dtype=torch.float64)
    actions = 2.0 * torch.rand(50, 8, generator=generator, dtype=torch.float64) - 1.0
    free = torch.ones(50, 8, dtype=torch.bool)
    step, _, _ = _step_in_box(matrix, gradient, actions, free, torch.zeros_like(actions), rounds=12)
    reached, slope = actions + step, gradient - (matrix @ step[:, :, None]).squeeze(2)
    solved = (reached.abs() <= 1 + 1e-12).all(1)
    interior = reached.abs() < 1 - 1e-12
    solved &= (slope.masked_fill(~interior, 0.0).abs() < 1e-9).all(1)
    solved &= ((slope * reached)[:, None].masked_fill(interior[:, None], 1.0) > -1e-12).flatten(1).all(1)
    assert solved.double().mean() > 0.9  # the others cycle, and the ascent shortens their step


def test_the_shift_gives_the_step_its_length():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(20, 5, 5, generator=generator, dtype=torch.float64)
    gradient = torch.randn(20, 5, generator=generator, dtype=torch.float64)
    radius = torch.linspace(0.01, 2.0, 20, dtype=torch.float64)
    for matrix in (root + root.mT, root @ root.mT + torch.eye(5)):
        shift = _shift(matrix, gradient, radius)
        shifted = matrix + torch.diag_embed(shift[:, None].expand(20, 5))
        assert (torch.linalg.eigvalsh(shifted) > 0).all()
        length = torch.linalg.solve(shifted, gradient).norm(dim=1)
        assert (length <= 1.01 * radius).all()
        assert (((length - radius).abs() < 0.01 * radius) | (shift == 0)).all()


def test_derivatives_are_those_of_the_accepted_steps(latent_problem, frozen_steps):
    for bounds in BOUNDS:
        for mode, last in (("unroll", 1), ("truncated", 1), ("truncated", 3)):
            problem = latent_problem(batch=4, horizon=2)
            for parameter in problem.networks.parameters():
                parameter.data *= 2.5  # curved enough for steps that fail
            optimizer = NEWTON.replace(
                max_iterations=5, bounds=bounds, backward_mode=mode, backward_num_iterations=last
            )
            frozen_steps(problem, optimizer)


def test_one_step_on_a_linear_quadratic_problem_has_the_derivative_of_the_solution():
    # The derivative includes that of the Hessian: without it, one step from afar would be wrong in the matrices.
    problem = LinearQuadratic(batch=2)
    captured = [problem.R.requires_grad_(), problem.F.requires_grad_(), problem.x0.requires_grad_()]
    weights = torch.randn(2, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.autograd.grad((weights * problem.riccati()).sum(), captured)
    for mode in ("unroll", "truncated"):
        optimizer = NEWTON.replace(bounds=None, max_iterations=3, backward_mode=mode, backward_num_iterations=1)
        found = torch.autograd.grad((weights * optimizer(problem.objective, problem.start).actions).sum(), captured)
        # Only the symmetric part of R enters the objective, and only that of its derivative is determined.
        pairs = [((a + a.T, b + b.T) if a.shape == (2, 2) else (a, b)) for a, b in zip(found, expected, strict=True)]
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_backward_modes_agree_on_the_numbers(latent_problem, mode):
    problem = latent_problem(dtype=torch.float32)
    expected = NEWTON.replace(backward_mode="none")(problem.objective, problem.start)
    with torch.no_grad():
        solution = NEWTON.replace(backward_mode=mode)(problem.objective, problem.start)
    for name in ("actions", "best_actions", "values", "history"):
        assert torch.equal(getattr(solution, name), getattr(expected, name))
    assert solution.actions.requires_grad == (mode != "none")


def test_no_iterations_return_the_start(latent_problem):
    problem = latent_problem()
    solution = NEWTON.replace(max_iterations=0)(problem.objective, problem.start)
    assert torch.equal(solution.actions, problem.start)
    assert solution.history.shape == (3, 1)


def test_it_stops_asking_when_every_sample_is_done():
    calls = []

    def objective(actions):
        calls.append(actions)
        return -(actions - 0.3).square().sum(dim=(1, 2))

    solution = NEWTON.replace(max_iterations=50, backward_mode="none")(objective, torch.zeros(2, 1, 2).double())
    assert solution.history.shape == (2, 51)
    assert len(calls) < 10


class Doubled(torch.autograd.Function):
    """2x by an operation that torch cannot batch, as hand-written ones often are."""

    @staticmethod
    def forward(ctx, x):
        return 2.0 * x

    @staticmethod
    def backward(ctx, gradient):
        if not isinstance(gradient.detach().sum().item(), float):
            raise AssertionError
        return 2.0 * gradient


def test_operations_that_cannot_be_batched_are_taken_one_by_one():
    start = torch.zeros(2, 2, 1, dtype=torch.float64)
    solution = NEWTON(lambda a: -(Doubled.apply(a.pow(3) + a) - 0.5).square().sum(dim=(1, 2)), start)
    expected = NEWTON(lambda a: -(2.0 * (a.pow(3) + a) - 0.5).square().sum(dim=(1, 2)), start)
    torch.testing.assert_close(solution.actions, expected.actions)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_sample_stays_and_does_not_reach_the_shared_gradient(latent_problem, bad):
    problem = latent_problem()
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    optimizer = NEWTON.replace(backward_mode="unroll", max_iterations=4)
    solution = optimizer(lambda actions: problem.objective(actions) + offsets, problem.start)
    assert solution.failed.tolist() == [False, True, False]
    assert torch.equal(solution.actions[1], problem.start[1])
    healthy = problem.rows(torch.tensor([0, 2]))
    weights = torch.randn(3, 2, 2, dtype=torch.float64)
    parameters = list(problem.networks.parameters())
    found = torch.autograd.grad((weights * solution.actions).sum(), parameters, materialize_grads=True)
    alone = optimizer(healthy.objective, healthy.start).actions
    expected = torch.autograd.grad((weights[[0, 2]] * alone).sum(), parameters, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


def test_a_curvature_that_is_not_finite_stops_its_sample_alone():
    # |a|^1.5 has a gradient at 0 but no second derivative.
    solution = NEWTON(
        lambda a: (a - a.abs().pow(1.5)).sum(dim=(1, 2)), torch.tensor([0.0, 0.1], dtype=torch.float64).view(2, 1, 1)
    )
    assert solution.failed.tolist() == [True, False]
    assert solution.actions[0] == 0
    torch.testing.assert_close(solution.actions[1].item(), 4 / 9, rtol=0, atol=1e-6)


def test_truncated_counts_accepted_steps_of_each_sample():
    # Long after the first sample has converged, its last accepted steps are still the ones that are differentiated.
    centre = torch.tensor([0.3, -0.5], dtype=torch.float64, requires_grad=True)

    def objective(actions):
        miss = actions[:, 0, 0] - centre
        return -torch.stack([miss[0].square(), miss[1].abs().pow(2.5)])

    start = torch.zeros(2, 1, 1, dtype=torch.float64)
    solution = NEWTON.replace(max_iterations=60, backward_num_iterations=1)(objective, start)
    (gradient,) = torch.autograd.grad(solution.actions.sum(), centre)
    assert gradient[0] == 1.0
    assert gradient[1] > 0.3


def test_trials_that_break_are_taken_back_and_counted():
    # Beyond 0.35 there is nothing; the optimum of what there is lies at the edge.
    def objective(actions):
        return torch.where(actions > 0.35, float("nan"), actions - 0.1 * actions.square()).sum(dim=(1, 2))

    solution = NEWTON.replace(max_iterations=30)(objective, torch.zeros(1, 1, 1))
    assert solution.num_failed == 1
    assert 0.3 < solution.best_actions.item() <= 0.35
    assert torch.equal(solution.actions, solution.best_actions)


@pytest.mark.parametrize("mode", ["unroll", "truncated", "implicit", "none"])
@pytest.mark.parametrize("solver", ["lm", "adam", "newton"])
def test_an_empty_batch_has_an_empty_solution(solver, mode):
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=3, backward_mode=mode)
    solution = optimizer(lambda actions: -(actions - 0.3).square().sum(dim=(1, 2)), torch.zeros(0, 2, 3))
    assert solution.best_actions.shape == (0, 2, 3)
    assert solution.history.shape == (0, 4)
