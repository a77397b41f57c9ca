"""Levenberg-Marquardt with a damping of its own for each sample."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer

ADAPTIVE = TrajectoryOptimizer(solver="lm", adaptive_damping=True, max_iterations=30)
BOUNDS = [None, "clamp", "project"]


def test_the_default_is_constant_damping(latent_problem):
    problem = latent_problem()
    assert not TrajectoryOptimizer(solver="lm").adaptive_damping
    found = TrajectoryOptimizer(solver="lm", adaptive_damping=False)(problem.objective, problem.start)
    assert torch.equal(found.actions, TrajectoryOptimizer(solver="lm")(problem.objective, problem.start).actions)


def test_the_first_step_is_that_of_constant_damping(latent_problem):
    problem = latent_problem()
    once = ADAPTIVE.replace(max_iterations=1)
    expected = once.replace(adaptive_damping=False)(problem.objective, problem.start)
    assert (expected.history[:, 1] > expected.history[:, 0]).all()
    torch.testing.assert_close(once(problem.objective, problem.start).actions, expected.actions, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("step_size", [1e-5, 1e-3, 0.1])
def test_history_never_falls(latent_problem, bounds, step_size):
    problem = latent_problem(batch=6, horizon=3, width=16)
    for parameter in problem.networks.parameters():
        parameter.data *= 3.0
    solution = ADAPTIVE.replace(bounds=bounds, step_size=step_size)(problem.objective, problem.start)
    assert (solution.history.diff(dim=1) >= -1e-13).all()
    assert (solution.history[:, -1] > solution.history[:, 0]).all()


def test_converges_where_constant_damping_oscillates():
    # A curvature of 40 needs a damping above 20; the first is 0.5, and a sample with curvature 1 needs none.
    curvature = torch.tensor([40.0, 1.0], dtype=torch.float64).view(2, 1, 1)

    def objective(actions):
        return -0.5 * (curvature * (actions - 0.4).square()).sum(dim=(1, 2))

    start = torch.zeros(2, 1, 1, dtype=torch.float64)
    constant = ADAPTIVE.replace(adaptive_damping=False)(objective, start)
    assert (constant.actions[0] - 0.4).abs() > 0.01
    adaptive = ADAPTIVE.replace(max_iterations=60)(objective, start)
    torch.testing.assert_close(adaptive.actions, torch.full_like(start, 0.4), rtol=0, atol=1e-6)


def test_derivatives_are_those_of_the_accepted_steps(latent_problem, frozen_steps):
    for bounds in BOUNDS:
        for mode, last in (("unroll", 1), ("truncated", 3)):
            problem = latent_problem(batch=5, horizon=3, seed=2)
            for parameter in problem.networks.parameters():
                parameter.data *= 3.0  # curved enough for steps that fail
            frozen_steps(
                problem,
                ADAPTIVE.replace(
                    max_iterations=9, bounds=bounds, backward_mode=mode, backward_num_iterations=last, damping=0.05
                ),
            )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_sample_stays_alone(latent_problem, bad):
    problem = latent_problem()
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    solution = ADAPTIVE(lambda actions: problem.objective(actions) + offsets, problem.start)
    clean = ADAPTIVE(problem.objective, problem.start)
    assert solution.failed.tolist() == [False, True, False]
    assert torch.equal(solution.actions[1], problem.start[1])
    assert torch.equal(solution.actions[[0, 2]], clean.actions[[0, 2]])
    assert all(gradient.isfinite().all() for gradient in problem.gradients(solution.actions).values())
