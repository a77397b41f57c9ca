"""The cross-entropy method: what it finds, how its elites count, and that it shares MPPI's loop."""

import pytest
import torch

from difftori_gym.trajopt import SampledSolution, TrajectoryOptimizer
from difftori_gym.trajopt.cem import equal_weights

CEM = TrajectoryOptimizer(solver="cem", max_iterations=6, num_samples=256, num_elites=32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finds_the_optimum_of_a_quadratic_inside_and_at_the_wall(dtype):
    optimum = torch.tensor([[[0.4, -0.7]], [[3.0, 0.1]]], dtype=dtype)
    solution = CEM.replace(max_iterations=12)(
        lambda actions: -(actions - optimum).square().sum(dim=(1, 2)),
        torch.zeros(2, 1, 2, dtype=dtype),
        generator=seeded(),
    )
    torch.testing.assert_close(solution.best_actions, optimum.clamp(-1, 1), rtol=0, atol=0.05)
    torch.testing.assert_close(solution.mean, optimum.clamp(-1, 1), rtol=0, atol=0.05)
    assert solution.actions.dtype == solution.values.dtype == dtype


def test_better_than_the_start_and_inside_the_box(latent_problem):
    problem = latent_problem(batch=4, horizon=3)
    solution = CEM(problem.objective, problem.start, generator=seeded())
    assert isinstance(solution, SampledSolution)
    assert (solution.values > problem.objective(problem.start)).all()
    torch.testing.assert_close(problem.objective(solution.best_actions).detach(), solution.values)
    for actions in (solution.actions, solution.best_actions, solution.mean):
        assert actions.abs().max() <= 1
        assert not actions.requires_grad
    assert (solution.std >= CEM.min_std).all()
    assert (solution.std <= CEM.max_std).all()
    assert solution.history.shape == (4, 7)


def test_the_refit_is_the_mean_and_spread_of_the_elites():
    # Draws cannot compete: the elites are the three best candidates.
    candidates = torch.tensor([0.1, 0.3, 0.8, -1.0]).view(4, 1, 1, 1).expand(4, 2, 1, 1)
    listed = candidates[:3, 0, 0, 0]
    solution = CEM.replace(max_iterations=1, num_samples=5, num_elites=3, momentum=0.25, min_std=1e-3)(
        lambda actions: torch.where((actions[..., None] == listed).any(-1), actions, -5.0).sum(dim=(1, 2)),
        torch.full((2, 1, 1), 0.2),
        candidates=candidates,
        generator=seeded(),
    )
    torch.testing.assert_close(solution.mean, torch.full((2, 1, 1), 0.25 * 0.2 + 0.75 * 0.4))
    torch.testing.assert_close(solution.std, torch.full((2, 1, 1), float(listed.std(correction=0))))
    assert torch.isin(solution.actions, listed).all()
    assert torch.equal(solution.best_actions, torch.full((2, 1, 1), 0.8))


def test_broken_elites_do_not_count():
    weights = equal_weights(torch.tensor([[3.0, -torch.inf], [1.0, -torch.inf], [-torch.inf, -torch.inf]]), CEM)
    assert weights[:, 0].tolist() == [0.5, 0.5, 0.0]
    assert weights[:, 1].isnan().all()  # what the loop takes for "keep the mean"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_broken_draws_lose_and_are_counted(bad):
    def objective(actions):
        value = actions[:, 0, 0]
        broken = torch.stack([value[0] > 0, value[1] < 2, value[2] > 2])
        return torch.where(broken, bad, value)

    solution = CEM(objective, torch.full((3, 1, 1), -0.5), generator=seeded())
    assert solution.num_failed == 2
    assert -0.1 < solution.best_actions[0].item() <= 0
    assert solution.best_actions[1].item() == solution.actions[1].item() == solution.mean[1].item() == -0.5
    assert solution.best_actions[2].item() == 1
    for name in ("actions", "best_actions", "mean", "std"):
        assert getattr(solution, name).isfinite().all()


def test_one_generator_state_gives_one_solution(latent_problem):
    problem = latent_problem()
    first, second = (CEM(problem.objective, problem.start, generator=seeded(3)) for _ in range(2))
    other = CEM(problem.objective, problem.start, generator=seeded(4))
    for name in ("actions", "best_actions", "values", "history", "mean", "std"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(first.actions, other.actions)


def test_differs_from_mppi_in_the_weights_alone(latent_problem):
    # With one elite there is nothing to weigh, and with equal values nothing to tell apart.
    problem = latent_problem()
    single = CEM.replace(num_elites=1)
    expected = single.replace(solver="mppi")(problem.objective, problem.start, generator=seeded())
    found = single(problem.objective, problem.start, generator=seeded())
    for name in ("actions", "best_actions", "values", "history", "mean", "std"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


def test_no_iterations_return_the_start(latent_problem):
    problem = latent_problem()
    solution = CEM.replace(max_iterations=0)(problem.objective, problem.start)
    assert torch.equal(solution.best_actions, problem.start)
    assert torch.equal(solution.actions, problem.start)
