"""The sampling solver: what it finds, that it repeats, and what it does with bad numbers."""

import pytest
import torch

from difftori_gym.trajopt import SampledSolution, TrajectoryOptimizer

MPPI = TrajectoryOptimizer(solver="mppi", max_iterations=6, num_samples=256, num_elites=32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finds_the_optimum_of_a_quadratic_inside_and_at_the_wall(dtype):
    optimum = torch.tensor([[[0.4, -0.7]], [[3.0, 0.1]]], dtype=dtype)
    solution = MPPI.replace(max_iterations=12, temperature=10.0)(
        lambda actions: -(actions - optimum).square().sum(dim=(1, 2)),
        torch.zeros(2, 1, 2, dtype=dtype),
        generator=seeded(),
    )
    torch.testing.assert_close(solution.best_actions, optimum.clamp(-1, 1), rtol=0, atol=0.05)
    torch.testing.assert_close(solution.mean, optimum.clamp(-1, 1), rtol=0, atol=0.15)
    assert solution.actions.dtype == solution.values.dtype == dtype


def test_better_than_the_start_and_inside_the_box(latent_problem):
    problem = latent_problem(batch=4, horizon=3)
    solution = MPPI(problem.objective, problem.start, generator=seeded())
    assert isinstance(solution, SampledSolution)
    assert (solution.values > problem.objective(problem.start)).all()
    torch.testing.assert_close(problem.objective(solution.best_actions).detach(), solution.values)
    for actions in (solution.actions, solution.best_actions, solution.mean):
        assert actions.abs().max() <= 1
    assert (solution.std >= MPPI.min_std).all()
    assert (solution.std <= MPPI.max_std).all()
    assert solution.history.shape == (4, 7)
    assert not any(getattr(solution, name).requires_grad for name in ("actions", "best_actions", "values", "mean"))


def test_one_generator_state_gives_one_solution(latent_problem):
    problem = latent_problem()
    first = MPPI(problem.objective, problem.start, generator=seeded(3))
    torch.rand(5)  # the global state is not used
    second = MPPI(problem.objective, problem.start, generator=seeded(3))
    other = MPPI(problem.objective, problem.start, generator=seeded(4))
    for name in ("actions", "best_actions", "values", "history", "mean", "std"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.actions, other.actions)


def test_no_iterations_return_the_start(latent_problem):
    problem = latent_problem()
    solution = MPPI.replace(max_iterations=0)(problem.objective, problem.start)
    assert torch.equal(solution.best_actions, problem.start)
    assert torch.equal(solution.actions, problem.start)
    assert solution.history.shape == (3, 1)


def test_candidates_compete():
    # A needle that draws do not hit: only the candidate knows where it is.
    needle = torch.full((2, 3, 2), 0.123)
    solution = MPPI.replace(max_iterations=1)(
        lambda actions: (
            100.0 * ((actions - needle).abs().amax(dim=(1, 2)) < 1e-6).float() - actions.square().sum((1, 2))
        ),
        torch.zeros(2, 3, 2),
        candidates=torch.stack([torch.zeros(2, 3, 2), needle]),
        generator=seeded(),
    )
    assert torch.equal(solution.best_actions, needle)
    assert torch.equal(solution.actions, needle)  # its weight among the elites is one


def test_candidates_count_towards_the_samples(latent_problem):
    problem = latent_problem()
    widths = []

    def objective(actions):
        widths.append(actions)
        return problem.objective(actions)

    candidates = torch.rand(300, 3, 2, 2, dtype=torch.float64)
    solution = MPPI(objective, problem.start, candidates=candidates, generator=seeded())
    assert (solution.values >= torch.vmap(problem.objective)(candidates).amax(0)).all()


def test_executed_actions_are_drawn_in_proportion_to_the_weights():
    # Two candidates whose weights are 3 to 1; the only draw is far worse than both.
    candidates = torch.tensor([0.5, -0.5]).view(2, 1, 1, 1).expand(2, 2000, 1, 1)
    value = torch.log(torch.tensor(3.0))
    solution = TrajectoryOptimizer(
        solver="mppi", max_iterations=1, num_samples=3, num_elites=2, temperature=1.0, max_std=1e-9, min_std=1e-9
    )(
        lambda actions: torch.where(actions == 0.5, value, torch.where(actions == -0.5, 0.0, -1e3)).sum(dim=(1, 2)),
        torch.zeros(2000, 1, 1),
        candidates=candidates,
        generator=seeded(),
    )
    assert 0.70 < (solution.actions == 0.5).float().mean() < 0.80
    torch.testing.assert_close(solution.mean, torch.full((2000, 1, 1), 0.9 * 0.25), rtol=1e-4, atol=1e-5)


def test_objectives_may_be_huge_without_losing_the_weights():
    solution = MPPI.replace(temperature=10.0)(
        lambda actions: 1e38 * actions.sum(dim=(1, 2)), torch.zeros(2, 1, 1), generator=seeded()
    )
    assert solution.num_failed == 0
    assert torch.equal(solution.best_actions, torch.ones(2, 1, 1))
    assert (solution.mean > 0.9).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_broken_draws_lose_and_are_counted(bad):
    # The right half of the box is broken for sample 0, everything is broken for sample 1.
    def objective(actions):
        value = actions[:, 0, 0]
        broken = torch.stack([value[0] > 0, value[1] < 2, value[2] > 2])
        return torch.where(broken, bad, value)

    solution = MPPI(objective, torch.full((3, 1, 1), -0.5), generator=seeded())
    assert solution.num_failed == 2
    assert -0.1 < solution.best_actions[0].item() <= 0
    assert solution.best_actions[1].item() == solution.actions[1].item() == solution.mean[1].item() == -0.5
    assert solution.best_actions[2].item() == 1
    for name in ("actions", "best_actions", "mean", "std"):
        assert getattr(solution, name).isfinite().all()


def test_a_broken_start_and_broken_candidates_are_replaced(latent_problem):
    problem = latent_problem()
    start = problem.start.detach().clone()
    start[1, 0, 0] = float("nan")
    candidates = torch.full((4, *start.shape), float("inf"), dtype=torch.float64)
    solution = MPPI(problem.objective, start, candidates=candidates, generator=seeded())
    assert solution.num_failed == 1
    assert solution.best_actions.isfinite().all()
    assert solution.best_actions.abs().max() <= 1


def test_objectives_with_dropout_can_be_sampled(latent_problem):
    problem = latent_problem()
    solution = MPPI(
        lambda actions: torch.nn.functional.dropout(problem.objective(actions), 0.5), problem.start, generator=seeded()
    )
    assert solution.best_actions.isfinite().all()
