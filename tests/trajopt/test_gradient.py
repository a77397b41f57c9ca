"""Projected gradient ascent: no scale to tune, no step that makes it worse, and its derivative."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer

GRADIENT = TrajectoryOptimizer(solver="gradient", max_iterations=30)
BOUNDS = [None, "clamp", "project"]


def quadratic(optimum, curvature=1.0):
    return lambda actions: -(curvature * (actions - optimum).square()).sum(dim=(1, 2))


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finds_the_optimum_at_any_scale_of_the_objective(scale, dtype):
    optimum = torch.tensor([[[0.4, -0.7]], [[3.0, 0.1]]], dtype=dtype)
    curvature = scale * torch.tensor([1.0, 7.0], dtype=dtype)
    solution = GRADIENT(quadratic(optimum, curvature), torch.zeros(2, 1, 2, dtype=dtype))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-7
    for actions in (solution.actions.detach(), solution.best_actions):
        torch.testing.assert_close(actions, optimum.clamp(-1, 1), rtol=0, atol=tolerance)
    assert solution.num_failed == 0


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_iterates_do_not_depend_on_the_scale(latent_problem, scale):
    problem = latent_problem(batch=4, horizon=3)
    expected = GRADIENT(problem.objective, problem.start)
    found = GRADIENT(lambda actions: scale * problem.objective(actions), problem.start)
    torch.testing.assert_close(found.actions, expected.actions, rtol=1e-5, atol=1e-6)


def test_the_first_step_moves_the_steepest_action_by_the_step_size():
    slopes = torch.tensor([[[3.0, -6.0]], [[0.1, 0.05]]])
    solution = GRADIENT.replace(max_iterations=1, step_size=0.25)(
        lambda actions: (slopes * actions).sum(dim=(1, 2)), torch.zeros(2, 1, 2)
    )
    torch.testing.assert_close(solution.actions, torch.tensor([[[0.125, -0.25]], [[0.25, 0.125]]]))


def test_an_ill_conditioned_optimum_is_found_in_few_iterations():
    curvature = torch.logspace(0, 3, 12, dtype=torch.float64).view(1, 4, 3)
    optimum = torch.linspace(-0.9, 0.9, 12, dtype=torch.float64).view(1, 4, 3)
    solution = GRADIENT.replace(max_iterations=300)(quadratic(optimum, curvature), torch.zeros_like(optimum))
    torch.testing.assert_close(solution.best_actions, optimum, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("step_size", [1e-6, 0.1, 100.0])
def test_history_never_falls(latent_problem, bounds, step_size):
    problem = latent_problem(batch=6, horizon=3, width=16)
    for parameter in problem.networks.parameters():
        parameter.data *= 3.0
    solution = GRADIENT.replace(bounds=bounds, step_size=step_size)(problem.objective, problem.start)
    assert (solution.history.diff(dim=1) >= -1e-13).all()
    assert (solution.history[:, -1] > solution.history[:, 0]).all()
    if bounds != "clamp":
        torch.testing.assert_close(problem.objective(solution.actions), solution.history[:, -1])


def test_a_step_too_long_is_taken_back_per_sample():
    # From 0.9 a step of one lands beyond the optimum at 1.0, on lower ground; from -0.9 it does not.
    optimizer = GRADIENT.replace(max_iterations=1, step_size=1.0, bounds=None)
    start = torch.tensor([0.9, -0.9]).view(2, 1, 1)
    solution = optimizer(quadratic(1.0), start)
    assert solution.actions.flatten().tolist() == pytest.approx([0.9, 0.1])
    assert torch.equal(solution.history[0, 0], solution.history[0, 1])


def test_derivatives_are_those_of_the_accepted_steps(latent_problem, frozen_steps):
    for bounds in BOUNDS:
        for mode, last in (("unroll", 1), ("truncated", 1), ("truncated", 4)):
            problem = latent_problem(batch=5, horizon=3, seed=2)
            for parameter in problem.networks.parameters():
                parameter.data *= 3.0  # curved enough for steps that fail
            optimizer = GRADIENT.replace(
                max_iterations=9, step_size=1.0, bounds=bounds, backward_mode=mode, backward_num_iterations=last
            )
            frozen_steps(problem, optimizer)


def test_truncated_counts_accepted_steps_of_each_sample():
    # Long after both samples have converged, the last accepted steps are still the ones that are differentiated.
    optimum = torch.tensor([0.3, -0.5], dtype=torch.float64, requires_grad=True)
    optimizer = GRADIENT.replace(max_iterations=60, backward_mode="truncated", backward_num_iterations=4)
    solution = optimizer(quadratic(optimum.view(2, 1, 1)), torch.zeros(2, 1, 1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(solution.actions.sum(), optimum)
    torch.testing.assert_close(gradient, torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-6)


def test_the_derivative_at_a_converged_optimum_is_that_of_the_optimum():
    # In the box argmax = M^-1 b, at the wall the first action is constant.
    matrix = torch.tensor([[3.0, 0.7], [0.7, 1.0]], dtype=torch.float64)
    b = torch.tensor([[0.4, -0.3], [9.0, 0.2]], dtype=torch.float64, requires_grad=True)

    def objective(actions):
        a = actions[:, 0]
        return (b * a).sum(1) - 0.5 * torch.einsum("bi,ij,bj->b", a, matrix, a)

    solution = GRADIENT.replace(max_iterations=100, backward_mode="unroll")(objective, torch.zeros(2, 1, 2).double())
    jacobian = torch.stack([torch.autograd.grad(solution.actions[i, 0, 1], b, retain_graph=True)[0] for i in range(2)])
    assert solution.actions[1, 0, 0] == 1.0
    torch.testing.assert_close(jacobian[0, 0], matrix.inverse()[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(jacobian[1, 1], torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-6)


def test_inward_gradients_can_pull_an_action_off_the_wall():
    slope = torch.tensor(2.0, requires_grad=True)
    optimizer = GRADIENT.replace(max_iterations=3, step_size=0.5, backward_mode="unroll", wall_gradient="inward")
    for wall_gradient, moves in (("exact", False), ("inward", True)):
        action = optimizer.replace(wall_gradient=wall_gradient)(
            lambda a: slope * a.sum(dim=(1, 2)), torch.full((1, 1, 1), 0.9)
        ).actions
        (gradient,) = torch.autograd.grad((action - 0.5).square().sum(), slope)
        assert action == 1.0
        assert (gradient > 0) == moves


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_backward_modes_agree_on_the_numbers(latent_problem, mode):
    problem = latent_problem(dtype=torch.float32)
    expected = GRADIENT.replace(backward_mode="none")(problem.objective, problem.start)
    with torch.no_grad():
        solution = GRADIENT.replace(backward_mode=mode)(problem.objective, problem.start)
    for name in ("actions", "best_actions", "values", "history"):
        assert torch.equal(getattr(solution, name), getattr(expected, name))
    assert solution.actions.requires_grad == (mode != "none")
    assert not any(getattr(solution, name).requires_grad for name in ("best_actions", "values", "history"))


def test_an_objectives_own_gradient_serves_the_search(latent_problem):
    problem = latent_problem()
    calls = dict(graph=0, numbers=0)

    class WithGradient:
        def __call__(self, actions):
            calls["graph"] += actions.requires_grad
            return problem.objective(actions)

        def value_and_gradient(self, actions):
            calls["numbers"] += 1
            with torch.enable_grad():
                point = actions.clone().requires_grad_()
                value = problem.objective(point)
                return value.detach(), torch.autograd.grad(value.sum(), point)[0]

    optimizer = GRADIENT.replace(max_iterations=6, backward_num_iterations=2)
    solution = optimizer(WithGradient(), problem.start)
    assert calls == dict(graph=2, numbers=7)
    assert torch.equal(solution.actions, optimizer(problem.objective, problem.start).actions)


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_no_iterations_return_the_start(latent_problem, mode):
    problem = latent_problem()
    solution = GRADIENT.replace(max_iterations=0, backward_mode=mode)(problem.objective, problem.start)
    assert torch.equal(solution.actions, problem.start)
    assert torch.equal(solution.best_actions, problem.start)
    assert solution.history.shape == (3, 1)


def test_truncated_over_all_iterations_is_unroll(latent_problem):
    problem = latent_problem()
    unroll = GRADIENT.replace(max_iterations=4, backward_mode="unroll")
    truncated = unroll.replace(backward_mode="truncated", backward_num_iterations=7)
    expected = problem.gradients(unroll(problem.objective, problem.start).actions, of_start=True)
    found = problem.gradients(truncated(problem.objective, problem.start).actions, of_start=True)
    for name in expected:
        assert torch.equal(found[name], expected[name])
    few = truncated.replace(backward_num_iterations=2)(problem.objective, problem.start).actions
    assert torch.autograd.grad(few.sum(), problem.start, allow_unused=True) == (None,)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("mode", ["unroll", "truncated"])
def test_a_broken_sample_stays_and_does_not_reach_the_shared_gradient(latent_problem, bad, mode):
    problem = latent_problem()
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    optimizer = GRADIENT.replace(backward_mode=mode)
    solution = optimizer(lambda actions: problem.objective(actions) + offsets, problem.start)
    assert solution.num_failed == 1
    assert torch.equal(solution.actions[1], problem.start[1])
    healthy = problem.rows(torch.tensor([0, 2]))
    weights = torch.randn(3, 2, 2, dtype=torch.float64)
    parameters = list(problem.networks.parameters())
    found = torch.autograd.grad((weights * solution.actions).sum(), parameters, materialize_grads=True)
    alone = optimizer(healthy.objective, healthy.start).actions
    expected = torch.autograd.grad((weights[[0, 2]] * alone).sum(), parameters, materialize_grads=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-10)


def test_trials_that_break_are_taken_back_and_counted():
    # Beyond 0.35 there is nothing; the optimum of what there is lies at the edge.
    solution = GRADIENT.replace(step_size=0.5)(
        lambda actions: torch.where(actions > 0.35, float("nan"), actions).sum(dim=(1, 2)), torch.zeros(1, 1, 1)
    )
    assert solution.num_failed == 1
    assert 0.3 < solution.best_actions.item() <= 0.35
    assert torch.equal(solution.actions, solution.best_actions)
