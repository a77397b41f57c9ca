"""The closed-form solver: its step, its derivatives against finite differences, its sample-wise independence."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.iterates import project

# Steps of a moderate size on the random models: without a box some iterates end outside it, with one some at a wall.
SETTINGS = dict(max_iterations=6, step_size=2e-3, damping=3.0)
BOUNDS = [None, "clamp", "project"]


def quadratic(optimum, scale=1.0):
    """-scale |a - optimum|^2 per sample."""
    return lambda actions: -scale * (actions - optimum).square().sum(dim=(1, 2))


def numerical_derivative(function, tensor, direction, epsilon=1e-6):
    """Central difference of a scalar function along a direction of a tensor it depends on."""
    with torch.no_grad():
        origin = tensor.clone()
        values = []
        for sign in (1.0, -1.0):
            tensor.copy_(origin + sign * epsilon * direction)
            values.append(function())
        tensor.copy_(origin)
        return (values[0] - values[1]) / (2 * epsilon)


def assert_matches_finite_differences(problem, gradients, solve, tolerance=1e-6):
    """Each gradient against the central difference of ``solve`` along a random direction of that tensor."""
    generator = torch.Generator().manual_seed(5)
    actions = solve()
    weights = torch.randn(actions.shape, generator=generator, dtype=torch.float64)
    leaves = {**problem.captured, "start": problem.start}
    for name, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        numerical = numerical_derivative(lambda: (weights * solve()).sum(), leaves[name], direction)
        torch.testing.assert_close(
            (gradient * direction).sum(), numerical, rtol=tolerance, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_step_solves_the_damped_normal_equations(latent_problem, bounds):
    problem = latent_problem(batch=4, horizon=3, action_dim=2)
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=1, step_size=1e-5, damping=0.3, bounds=bounds)
    solution = optimizer(problem.objective, problem.start)
    assert solution.actions.abs().max() < 1

    value = problem.objective(problem.start)
    (gradient,) = torch.autograd.grad(value.sum(), problem.start)
    jacobian = -gradient.flatten(1)[:, None, :]  # of the residual 1000 - value
    matrix = jacobian.mT @ jacobian + 0.3 * torch.eye(6, dtype=torch.float64)
    step = torch.linalg.solve(matrix, -(jacobian.mT @ (1000.0 - value)[:, None, None])).reshape(4, 3, 2)
    torch.testing.assert_close(solution.actions - problem.start, 1e-5 * step, rtol=1e-9, atol=0)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 1, 1), (1, 4, 3)])
def test_unroll_is_the_derivative_of_the_solver(latent_problem, bounds, shape):
    problem = latent_problem(*shape)
    optimizer = TrajectoryOptimizer(solver="lm", **SETTINGS, bounds=bounds, backward_mode="unroll")
    solution = optimizer(problem.objective, problem.start)

    gradients = problem.gradients(solution.actions, of_start=True)
    assert_matches_finite_differences(
        problem, gradients, lambda: optimizer(problem.objective, problem.start).actions.detach()
    )
    assert all(gradient.abs().max() > 0 for gradient in gradients.values())


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("last", [1, 3])
def test_truncated_is_the_derivative_of_the_last_iterations_from_a_fixed_iterate(latent_problem, bounds, last):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(
        solver="lm", **SETTINGS, bounds=bounds, backward_mode="truncated", backward_num_iterations=last
    )
    gradients = problem.gradients(optimizer(problem.objective, problem.start).actions)

    first = optimizer.replace(max_iterations=SETTINGS["max_iterations"] - last, backward_mode="none")
    fixed = first(problem.objective, problem.start).actions
    rest = optimizer.replace(max_iterations=last, backward_mode="none")
    objective = problem.objective
    if bounds == "clamp":  # where iterates may have left the box, in which a start has to lie
        rest, objective = rest.replace(bounds=None), lambda actions: problem.objective(actions.clamp(-1.0, 1.0))
    assert_matches_finite_differences(problem, gradients, lambda: rest(objective, fixed).actions)


def test_derivatives_are_exact_where_iterates_rest_on_walls_and_leave_them(latent_problem):
    problem = latent_problem(batch=8, horizon=3, action_dim=2, seed=3)
    optimizer = TrajectoryOptimizer(
        solver="lm", max_iterations=5, step_size=5e-3, damping=3.0, bounds="project", backward_mode="unroll"
    )
    with torch.no_grad():
        problem.start[:4, 0] = 1.0  # exactly on a wall; some samples stay there, others leave it
    visited = []

    def objective(actions):
        visited.append(actions.detach())
        return problem.objective(actions)

    solution = optimizer(objective, problem.start)
    on_wall = torch.stack(visited).abs() == 1.0
    assert (on_wall[-1] & ~on_wall[0]).any(), "no iterate runs into a wall"
    assert (on_wall[0] & ~on_wall[-1]).any(), "no iterate leaves a wall"
    assert (on_wall[0] & on_wall[-1]).any(), "no iterate rests on a wall"
    assert_matches_finite_differences(
        problem,
        problem.gradients(solution.actions),
        lambda: optimizer(problem.objective, problem.start).actions.detach(),
    )


@pytest.mark.parametrize("iterations", [1, 4])
def test_truncated_over_all_iterations_is_unroll(latent_problem, iterations):
    problem = latent_problem()
    unroll = TrajectoryOptimizer(solver="lm", max_iterations=iterations, backward_mode="unroll")
    truncated = unroll.replace(backward_mode="truncated", backward_num_iterations=7)
    expected = problem.gradients(unroll(problem.objective, problem.start).actions, of_start=True)
    found = problem.gradients(truncated(problem.objective, problem.start).actions, of_start=True)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=0)


def test_truncated_does_not_reach_the_start(latent_problem):
    problem = latent_problem()
    actions = TrajectoryOptimizer(solver="lm", max_iterations=4, backward_num_iterations=2)(
        problem.objective, problem.start
    ).actions
    assert torch.autograd.grad(actions.sum(), problem.start, allow_unused=True) == (None,)


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_backward_modes_agree_on_the_numbers(latent_problem, mode):
    problem = latent_problem(dtype=torch.float32)
    unroll = TrajectoryOptimizer(solver="lm", **SETTINGS, backward_mode="unroll")(problem.objective, problem.start)
    other = TrajectoryOptimizer(solver="lm", **SETTINGS, backward_mode=mode)(problem.objective, problem.start)
    for name in ("actions", "best_actions", "values", "history"):
        assert torch.equal(getattr(other, name), getattr(unroll, name))


@pytest.mark.parametrize("mode", ["unroll", "truncated"])
def test_gradients_under_no_grad(latent_problem, mode):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="lm", **SETTINGS, backward_mode=mode)
    expected = optimizer(problem.objective, problem.start)
    with torch.no_grad():
        solution = optimizer(problem.objective, problem.start)
        assert not torch.is_grad_enabled()
    assert torch.equal(solution.actions, expected.actions)
    assert (solution.history[:, -1] > solution.history[:, 0]).all()


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_only_actions_carry_a_graph(latent_problem, mode):
    problem = latent_problem()
    solution = TrajectoryOptimizer(solver="lm", backward_mode=mode)(problem.objective, problem.start)
    assert solution.actions.requires_grad == (mode != "none")
    for tensor in (solution.best_actions, solution.values, solution.history, solution.num_failed):
        assert not tensor.requires_grad


@pytest.mark.parametrize("bounds", BOUNDS)
def test_history_and_best_belong_to_the_iterates(latent_problem, bounds):
    problem = latent_problem()
    visited = []

    def objective(actions):
        visited.append(actions.detach())
        return problem.objective(actions)

    solution = TrajectoryOptimizer(solver="lm", max_iterations=7, step_size=0.02, bounds=bounds)(
        objective, problem.start
    )
    iterates = torch.stack(visited[:8])
    torch.testing.assert_close(solution.history, torch.stack([problem.objective(a) for a in iterates], 1).detach())
    best = iterates[solution.history.argmax(1), torch.arange(3)].clamp(-1, 1)
    if bounds is not None:
        assert torch.equal(solution.best_actions, best)
    torch.testing.assert_close(solution.values, problem.objective(solution.best_actions).detach())


class WithGradient:
    """An objective that also computes its gradient itself, and counts who asks for what."""

    def __init__(self, problem):
        self.problem, self.graphs, self.numbers = problem, 0, 0

    def __call__(self, actions):
        self.graphs += actions.requires_grad and torch.is_grad_enabled()
        return self.problem.objective(actions)

    def value_and_gradient(self, actions):
        assert not actions.requires_grad
        self.numbers += 1
        with torch.enable_grad():
            point = actions.clone().requires_grad_()
            value = self.problem.objective(point)
            return value.detach(), torch.autograd.grad(value.sum(), point)[0]


@pytest.mark.parametrize("bounds", [None, "project"])
@pytest.mark.parametrize(("mode", "numbers"), [("none", 6), ("truncated", 4), ("unroll", 0)])
def test_an_objectives_own_gradient_serves_where_no_graph_is_needed(latent_problem, bounds, mode, numbers):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(
        solver="lm", **SETTINGS, bounds=bounds, backward_mode=mode, backward_num_iterations=2
    )
    objective = WithGradient(problem)
    solution, expected = optimizer(objective, problem.start), optimizer(problem.objective, problem.start)
    assert (objective.numbers, objective.graphs) == (numbers, 6 - numbers)
    for name in ("actions", "best_actions", "values", "history"):
        assert torch.equal(getattr(solution, name), getattr(expected, name))
    if mode != "none":
        gradients = problem.gradients(expected.actions)
        for name, gradient in problem.gradients(solution.actions).items():
            assert torch.equal(gradient, gradients[name])


def test_no_iterations_return_the_start(latent_problem):
    problem = latent_problem()
    for mode in ("unroll", "truncated"):
        solution = TrajectoryOptimizer(solver="lm", max_iterations=0, backward_mode=mode)(
            problem.objective, problem.start
        )
        assert torch.equal(solution.actions, problem.start)
        assert torch.equal(solution.best_actions, problem.start)
        assert solution.history.shape == (3, 1)
        (gradient,) = torch.autograd.grad(solution.actions.sum(), problem.start)
        assert torch.equal(gradient, torch.ones_like(gradient))


def test_an_empty_batch_has_an_empty_solution(latent_problem):
    problem = latent_problem().rows(slice(0, 0))
    solution = TrajectoryOptimizer(solver="lm", max_iterations=2, bounds=None)(problem.objective, problem.start)
    assert solution.actions.shape == solution.best_actions.shape == (0, 2, 2)
    assert solution.history.shape == (0, 3)
    assert solution.num_failed == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", BOUNDS)
def test_a_batch_is_solved_as_each_sample_alone(latent_problem, dtype, bounds):
    problem = latent_problem(batch=5, dtype=dtype)
    optimizer = TrajectoryOptimizer(solver="lm", **SETTINGS, bounds=bounds)
    together = optimizer(problem.objective, problem.start)
    tolerance = dict(rtol=1e-4, atol=1e-5) if dtype == torch.float32 else dict(rtol=1e-10, atol=1e-12)
    for i in range(5):
        row = problem.rows(slice(i, i + 1))
        alone = optimizer(row.objective, row.start)
        for name in ("actions", "best_actions", "values", "history"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[i], **tolerance)


def test_permuting_the_batch_permutes_the_solution(latent_problem):
    problem = latent_problem(batch=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = problem.rows(order)
    optimizer = TrajectoryOptimizer(solver="lm", **SETTINGS)
    expected = optimizer(problem.objective, problem.start)
    found = optimizer(permuted.objective, permuted.start)
    for name in ("actions", "best_actions", "values", "history"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name)[order], rtol=1e-10, atol=1e-12)


def test_projection_recovers_where_clamping_inside_the_objective_is_stuck():
    # The first step, of length 1.6 along each action, leaps across the optimum and out of the box.
    start = torch.full((1, 1, 2), -0.5)
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=100, step_size=0.1, damping=40.0, residual_offset=500.0)
    clamp = optimizer.replace(bounds="clamp")(quadratic(0.2), start)
    assert clamp.actions.min() > 1.0
    assert torch.equal(clamp.history[:, 1], clamp.history[:, -1])
    optimizer = optimizer.replace(step_size=1e-3, damping=1.0)
    projected = optimizer(quadratic(0.2), clamp.actions.detach().clamp(-1, 1))
    torch.testing.assert_close(projected.actions, torch.full((1, 1, 2), 0.2), rtol=0, atol=0.05)


def test_gradient_into_a_wall_does_not_shorten_the_step_along_it():
    # The first component rests on its wall with a gradient a thousand times the second's.
    def objective(actions):
        return 1000.0 * actions[:, 0, 0] - (actions[:, 0, 1] - 0.5).square()

    start = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64)
    settings = dict(max_iterations=5, step_size=1e-4, damping=1.0, residual_offset=2000.0)
    projected = TrajectoryOptimizer(solver="lm", **settings)(objective, start).actions[0, 0]
    free = TrajectoryOptimizer(solver="lm", **settings, bounds=None)(objective, start).actions[0, 0]
    assert projected[0] == 1.0
    assert projected[1] > 0.1
    assert free[1] < 1e-3


def test_the_start_is_the_answer_where_clamping_costs_what_the_ascent_gained():
    # A wave: the free step lands on the next crest, at 1.88; the wall lies in the trough between.
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=1, step_size=1.9657e-3, damping=1e-2, bounds=None)
    start = torch.zeros(1, 1, 1)
    solution = optimizer(lambda actions: torch.cos(3.5 * actions - 0.3).sum(dim=(1, 2)), start)
    assert solution.history[0, 1] > solution.history[0, 0]
    assert torch.equal(solution.best_actions, start)
    assert torch.equal(solution.values, solution.history[:, 0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_never_the_best(bad):
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=5, step_size=2e-4, damping=1.0)  # steps of 0.1
    start = torch.tensor([0.0, 0.9]).view(2, 1, 1)
    solution = optimizer(lambda actions: torch.where(actions > 0.35, bad, actions).sum(dim=(1, 2)), start)
    torch.testing.assert_close(solution.best_actions[0].item(), 0.3, rtol=0, atol=1e-3)
    torch.testing.assert_close(solution.values[0].item(), 0.3, rtol=0, atol=1e-3)
    assert torch.equal(solution.best_actions[1], start[1])  # nothing finite was seen: the start
    assert solution.num_failed == 2


def test_an_offset_below_the_objective_turns_steps_round_but_never_the_best(latent_problem):
    problem = latent_problem()
    solution = TrajectoryOptimizer(solver="lm", residual_offset=-1000.0)(problem.objective, problem.start)
    assert (solution.history[:, -1] < solution.history[:, 0]).all()
    assert torch.equal(solution.best_actions, problem.start)
    assert torch.equal(solution.values, solution.history[:, 0])


def test_inward_gradients_pass_only_when_their_descent_leads_back_into_the_box():
    x = torch.tensor([-1.5, -1.5, 0.3, 0.3, 1.5, 1.5], requires_grad=True)
    incoming = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    (exact,) = torch.autograd.grad(project(x, "exact"), x, incoming)
    (inward,) = torch.autograd.grad(project(x, "inward"), x, incoming)
    assert exact.tolist() == [0.0, 0.0, 1.0, -1.0, 0.0, 0.0]
    assert inward.tolist() == [0.0, -1.0, 1.0, -1.0, 1.0, 0.0]
    assert torch.equal(project(x, "inward"), project(x, "exact"))


@pytest.mark.parametrize("position", [0.9, 1.0])
def test_inward_learns_to_leave_a_wall_and_exact_cannot(position):
    # Large damping makes the solver a plain gradient step, a = position + 0.3 * slope, cut at 1.
    optimizer = TrajectoryOptimizer(
        solver="lm", max_iterations=3, step_size=1e-2, damping=100.0, backward_mode="unroll"
    )
    start = torch.full((1, 1, 1), position)
    actions = {}
    for wall_gradient in ("exact", "inward"):
        slope = torch.tensor(2.0, requires_grad=True)
        planner = optimizer.replace(wall_gradient=wall_gradient)
        for _ in range(100):
            action = planner(lambda a, slope=slope: slope * a.sum(dim=(1, 2)), start).actions.squeeze()
            (gradient,) = torch.autograd.grad((action - 0.5).square(), slope)
            slope.data -= gradient
        actions[wall_gradient] = action.detach()
    assert actions["exact"] == 1.0
    torch.testing.assert_close(actions["inward"], torch.tensor(0.5), rtol=0, atol=0.01)


def test_both_wall_gradients_agree_in_the_interior(latent_problem):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="lm", max_iterations=4, step_size=1e-5, damping=3.0)
    gradients = [
        problem.gradients(optimizer.replace(wall_gradient=kind)(problem.objective, problem.start).actions)
        for kind in ("exact", "inward")
    ]
    for name in gradients[0]:
        assert torch.equal(gradients[0][name], gradients[1][name])
