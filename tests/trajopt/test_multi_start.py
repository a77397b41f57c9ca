"""Several starts: which there are, that the best wins, and that samples stay apart."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.multi_start import gather_starts

SOLVERS = ["lm", "adam", "newton"]
FIELDS = ("actions", "best_actions", "values", "history", "failed")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def two_hills(actions):
    """A low hill at -0.5, of height 1, and a high one at 0.5, of height 2."""
    a = actions[:, 0, 0]
    return torch.exp(-((a + 0.5) ** 2) / 0.02) + 2.0 * torch.exp(-((a - 0.5) ** 2) / 0.02)


def optimizer(solver="newton", **settings):
    own = dict(step_size=0.05, num_starts=1) if solver == "adam" else {}
    return TrajectoryOptimizer(solver=solver, **{"max_iterations": 30, **own, **settings})


def test_starts_come_in_order_and_random_ones_serve_every_sample():
    given = torch.rand(2, 3, 1)
    warm = torch.rand(1, 2, 3, 1)
    warm[0, 1, 2] = float("nan")
    starts = gather_starts(given, warm, 5, seeded())
    assert starts.shape == (5, 2, 3, 1)
    assert torch.equal(starts[0], given)
    assert torch.equal(starts[1, 0], warm[0, 0])
    assert torch.equal(starts[1, 1, :2], warm[0, 1, :2])
    assert torch.equal(starts[1, 1, 2], given[1, 2])
    assert torch.equal(starts[2], torch.zeros(2, 3, 1))
    assert ((starts[3] - given).abs() < 1.5).all()
    assert (starts[3, 0] != given[0]).all()
    assert torch.equal(starts[4, 0], starts[4, 1])
    assert starts[3:].abs().max() <= 1
    assert not torch.equal(starts[3], starts[4])
    assert torch.equal(starts, gather_starts(given, warm, 5, seeded()))


def test_every_candidate_is_used():
    given = torch.rand(2, 3, 1)
    assert gather_starts(given, torch.rand(4, 2, 3, 1), 1, None).shape[0] == 5
    assert gather_starts(given, None, 1, None).shape[0] == 1


@pytest.mark.parametrize("solver", SOLVERS)
def test_each_sample_keeps_its_best_start(solver):
    start = torch.tensor([-0.5, 0.48]).view(2, 1, 1)
    candidates = torch.tensor([0.52, -0.48]).view(1, 2, 1, 1)
    alone = optimizer(solver)(two_hills, start)
    assert alone.values.tolist() == pytest.approx([1.0, 2.0], abs=0.01)
    solution = optimizer(solver)(two_hills, start, candidates=candidates)
    assert solution.values.tolist() == pytest.approx([2.0, 2.0], abs=0.01)
    torch.testing.assert_close(solution.best_actions, torch.full((2, 1, 1), 0.5), rtol=0, atol=0.05)
    assert torch.equal(solution.history[1], alone.history[1])
    torch.testing.assert_close(two_hills(solution.best_actions), solution.values)


@pytest.mark.parametrize("solver", SOLVERS)
def test_more_starts_are_never_worse(latent_problem, solver):
    problem = latent_problem(batch=6, horizon=3)
    for parameter in problem.networks.parameters():
        parameter.data *= 3.0
    values = []
    for num_starts in (1, 2, 6):
        solution = optimizer(solver, num_starts=num_starts, max_iterations=8)(
            problem.objective, problem.start, generator=seeded()
        )
        assert solution.history.shape == (6, 9)
        torch.testing.assert_close(problem.objective(solution.best_actions), solution.values, rtol=1e-9, atol=1e-9)
        values.append(solution.values)
    assert (values[1] >= values[0]).all()
    assert (values[2] >= values[1]).all()
    assert (values[2] > values[0]).any()


def test_one_start_is_the_solver_itself(latent_problem):
    problem = latent_problem()
    expected, found = (optimizer("lm", **extra)(problem.objective, problem.start) for extra in ({}, dict(num_starts=1)))
    for name in FIELDS:
        assert torch.equal(getattr(found, name), getattr(expected, name))


class Repeatable:
    """An objective over rows of latent states that knows how to repeat itself, and counts its calls."""

    def __init__(self, problem, calls):
        self.problem, self.calls = problem, calls

    def __call__(self, actions):
        self.calls.append(len(actions))
        return self.problem.objective(actions)

    def repeat(self, n):
        return Repeatable(self.problem.rows(torch.arange(len(self.problem.z0)).repeat(n)), self.calls)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("mode", ["none", "unroll", "truncated"])
def test_starts_solved_as_one_batch_equal_starts_solved_in_turn(latent_problem, solver, mode):
    problem = latent_problem(batch=4)
    many = optimizer(solver, num_starts=4, max_iterations=6, backward_mode=mode)
    calls: list[int] = []
    joint = many(Repeatable(problem, calls), problem.start, generator=seeded())
    in_turn = many(problem.objective, problem.start, generator=seeded())
    for name in FIELDS[:-1]:
        torch.testing.assert_close(getattr(joint, name), getattr(in_turn, name), rtol=1e-8, atol=1e-9)
    assert max(calls) == 16
    assert joint.actions.requires_grad == (mode != "none")
    if mode != "none":
        gradients = problem.gradients(in_turn.actions)
        for name, gradient in problem.gradients(joint.actions).items():
            torch.testing.assert_close(gradient, gradients[name], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_derivative_is_that_of_the_winner(latent_problem, solver):
    problem = latent_problem(batch=8)
    for parameter in problem.networks.parameters():
        parameter.data *= 3.0  # several optima
    one = optimizer(solver, max_iterations=4, step_size=0.05, backward_mode="unroll")
    candidate = torch.zeros_like(problem.start)
    runs = [one(problem.objective, start) for start in (problem.start, candidate)]
    winner = runs[1].values > runs[0].values
    assert winner.any()
    assert not winner.all()
    solution = one.replace(num_starts=2)(problem.objective, problem.start)
    expected = torch.where(winner[:, None, None], runs[1].actions, runs[0].actions)
    torch.testing.assert_close(solution.actions, expected)
    gradients = problem.gradients(expected, of_start=True)
    for name, gradient in problem.gradients(solution.actions, of_start=True).items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_batch_is_solved_as_each_sample_alone(latent_problem, solver):
    problem = latent_problem(batch=4)
    many = optimizer(solver, num_starts=5, max_iterations=6)
    together = many(problem.objective, problem.start, generator=seeded())
    for i in range(4):
        row = problem.rows(slice(i, i + 1))
        alone = many(row.objective, row.start, generator=seeded())
        # Starts that end in one optimum are equals up to rounding: which of them wins shows in the history only.
        for name in ("actions", "best_actions", "values"):
            torch.testing.assert_close(getattr(alone, name)[0], getattr(together, name)[i], rtol=1e-8, atol=1e-9)


def test_a_start_that_breaks_loses_and_is_counted():
    # To the right of 0 sample 0 is broken, and all of sample 2.
    def objective(actions):
        a = actions[:, 0, 0]
        broken = torch.stack([a[0] > 0, a[1] > 2, a[2] < 2])
        return torch.where(broken, float("nan"), -((a - 0.5) ** 2))

    solution = optimizer(max_iterations=5)(
        objective, torch.full((3, 1, 1), -0.5), candidates=torch.full((1, 3, 1, 1), 0.5)
    )
    assert solution.failed.tolist() == [True, False, True]
    assert solution.num_failed == 2
    assert solution.best_actions[0] <= 0
    assert solution.best_actions[1] == 0.5
    assert solution.best_actions[2] == -0.5
    assert solution.actions.isfinite().all()


def test_theseus_takes_several_starts():
    pytest.importorskip("theseus")
    start = torch.tensor([-0.5, 0.48]).view(2, 1, 1)
    lm = TrajectoryOptimizer(solver="lm", bounds=None, num_starts=4, max_iterations=6)
    expected = lm(two_hills, start, generator=seeded())
    found = lm.replace(solver="theseus")(two_hills, start, generator=seeded())
    torch.testing.assert_close(found.best_actions, expected.best_actions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["none", "truncated"])
def test_without_a_generator_a_solution_is_a_function_of_its_problem(latent_problem, mode):
    problem = latent_problem(batch=3)
    optimizer = TrajectoryOptimizer(backward_mode=mode)
    before = torch.get_rng_state()
    first = optimizer(problem.objective, problem.start)
    second = optimizer(problem.objective, problem.start)
    assert torch.equal(torch.get_rng_state(), before)
    for field in ("actions", "best_actions", "values"):
        assert torch.equal(getattr(first, field), getattr(second, field))
