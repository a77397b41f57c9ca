"""
What holds for every problem, every solver and every box: never worse than the start, inside the box, samples apart,
and numbers that broke are data.
"""

from collections.abc import Callable
from contextlib import contextmanager, nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from difftori_gym.models import LatentModel, LatentObjective
from difftori_gym.trajopt import TrajectoryOptimizer

# Name -> the settings that make this solver. What needs Theseus is skipped without it.
SOLVERS = {
    "lm": dict(solver="lm"),
    "theseus": dict(solver="theseus"),
    "adam": dict(solver="adam", num_starts=1),
    "newton": dict(solver="newton"),
    "mppi": dict(solver="mppi"),
    "cem": dict(solver="cem"),
    "several starts": dict(solver="adam", num_starts=3),
}
SAMPLING = ("mppi", "cem")
BOUNDS = [None, "clamp", "project"]
BAD = [float("nan"), float("inf"), -float("inf"), 1e30, -1e30]
BATCH = 3

dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 10**6)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
boxes = st.sampled_from(BOUNDS)
steps = st.sampled_from([1e-6, 1e-3, 0.1, 10.0])
dampings = st.sampled_from([1e-6, 1e-2, 10.0])
modes = st.sampled_from(["unroll", "truncated", "none"])
every_solver = pytest.mark.parametrize("name", SOLVERS)
few = settings(max_examples=15)  # for each solver


def make_optimizer(name, bounds, **changes):
    if name == "theseus":
        pytest.importorskip("theseus")
        bounds = "clamp" if bounds == "project" else bounds  # it knows no box
    common = dict(max_iterations=3, num_samples=8, num_elites=4, backward_num_iterations=2, bounds=bounds)
    return TrajectoryOptimizer(**{**common, **changes, **SOLVERS[name]})


class Quadratic:
    """-(a - b) M (a - b) / 2 per sample, its peak inside the box for some actions and beyond a wall for others."""

    def __init__(self, batch, horizon, action_dim, dtype, seed):
        generator = torch.Generator().manual_seed(seed)
        n = horizon * action_dim
        root = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
        self.matrix = (root @ root.mT + 0.1 * torch.eye(n)).to(dtype)
        self.peak = (1.5 * torch.randn(batch, n, generator=generator, dtype=torch.float64)).to(dtype)
        self.start = (2 * torch.rand(batch, horizon, action_dim, generator=generator, dtype=torch.float64) - 1).to(
            dtype
        )

    def rows(self, index):
        part = object.__new__(Quadratic)
        part.matrix, part.peak, part.start = self.matrix[index], self.peak[index], self.start[index]
        return part

    def objective(self, actions: Tensor) -> Tensor:
        distance = actions.flatten(-2) - self.peak
        return -0.5 * torch.einsum("...bi,bij,...bj->...b", distance, self.matrix, distance)


class Latent:
    """A random latent model of the package, with its own gradient and its repeated batch; twin values have kinks."""

    def __init__(self, batch, horizon, action_dim, dtype, seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            arch = (8,)
            model = LatentModel(4, action_dim, dynamics_arch=arch, reward_arch=arch, qf_arch=arch, pi_arch=arch)
            for parameter in model.parameters():
                parameter.data.add_(0.2 * torch.randn_like(parameter))
            self.model = model.to(dtype)
            self.z0 = torch.randn(batch, 4, dtype=dtype)
            self.start = 2 * torch.rand(batch, horizon, action_dim, dtype=dtype) - 1

    def rows(self, index):
        part = object.__new__(Latent)
        part.model, part.z0, part.start = self.model, self.z0[index], self.start[index]
        return part

    @property
    def objective(self):
        return LatentObjective(self.model, self.z0, discount=0.9)


problems = st.sampled_from([Quadratic, Latent])


class Watched:
    """An objective that remembers where it was asked."""

    def __init__(self, objective: Callable[[Tensor], Tensor]) -> None:
        self.objective = objective
        self.visited: list[Tensor] = []

    def __call__(self, actions: Tensor) -> Tensor:
        self.visited.append(actions.detach().clone())
        return self.objective(actions)

    def broken(self, curvature: bool) -> Tensor:
        """Samples whose value, gradient or, if asked for, curvature is not finite at some visited iterate."""
        broken = torch.zeros(BATCH, dtype=torch.bool)
        for actions in self.visited:
            point = actions.requires_grad_()
            value = self.objective(point)
            (gradient,) = torch.autograd.grad(value.sum(), point, create_graph=curvature)
            broken |= ~value.isfinite() | ~gradient.isfinite().flatten(1).all(1)
            for each in gradient.flatten(1).unbind(1) if curvature else ():
                (row,) = torch.autograd.grad(each.sum(), point, retain_graph=True)
                broken |= ~row.isfinite().flatten(1).all(1)
        return broken

    def steep(self) -> Tensor:
        """Samples with a gradient beside whose square the damping may be lost."""
        steep = torch.zeros(BATCH, dtype=torch.bool)
        for actions in self.visited:
            (gradient,) = torch.autograd.grad(self.objective(actions.requires_grad_()).sum(), actions)
            steep |= ~(gradient.flatten(1).double().square().sum(1) * torch.finfo(gradient.dtype).eps < 1e-3)
        return steep


def assert_finite_and_inside(solution, bounds):
    assert solution.best_actions.isfinite().all()
    assert solution.best_actions.abs().max() <= 1
    assert solution.actions.isfinite().all()
    assert solution.num_failed == solution.failed.sum()
    if bounds == "project":
        assert solution.actions.abs().max() <= 1


def tolerance_of(values):
    """What rounding may change in a value that is computed twice, in batches of other sizes perhaps."""
    unit = 64 * torch.finfo(values.dtype).eps
    return unit * (1.0 + values.abs())


@every_solver
@few
@given(problem=problems, seed=seeds, bounds=boxes, dtype=dtypes, step=steps, damping=dampings, shape=shapes, mode=modes)
def test_the_best_is_inside_the_box_and_never_worse_than_the_start(
    name, problem, seed, bounds, dtype, step, damping, shape, mode
):
    problem = problem(*shape, dtype, seed)
    optimizer = make_optimizer(name, bounds, step_size=step, damping=damping, backward_mode=mode)
    solution = optimizer(problem.objective, problem.start, generator=torch.Generator().manual_seed(seed))
    assert_finite_and_inside(solution, optimizer.bounds)
    with torch.no_grad():
        start, best = problem.objective(problem.start), problem.objective(solution.best_actions)
    assert (best >= start - tolerance_of(start)).all()
    assert ((solution.values - best).abs() <= tolerance_of(best)).all()
    # Not even where rounding undoes the damping, except that Theseus then meets a matrix it cannot factorise.
    assert solution.num_failed == 0 or (name == "theseus" and dtype == torch.float32)
    if name == "newton":
        assert (solution.history.diff(dim=1) >= -tolerance_of(solution.history[:, 1:])).all()


@every_solver
@few
@given(problem=problems, seed=seeds, step=steps, damping=dampings, dtype=dtypes)
def test_projection_keeps_every_iterate_in_the_box(name, problem, seed, step, damping, dtype):
    if name == "theseus":
        return  # it refuses the projection
    problem = problem(BATCH, 2, 2, dtype, seed)
    optimizer = make_optimizer(name, "project", step_size=step, damping=damping)
    visited = []

    def objective(actions):
        visited.append(actions.detach())
        return problem.objective(actions)

    solution = optimizer(objective, problem.start, generator=torch.Generator().manual_seed(seed))
    assert_finite_and_inside(solution, "project")
    if name not in SAMPLING:  # under vmap nothing can be read
        assert all(actions.abs().max() <= 1 for actions in visited)


@contextmanager
def shared_draws(seed):
    """Every sample of a batch is shown the same noise, so that a batch can be compared with its samples alone."""
    source = torch.Generator().manual_seed(seed)

    def randn(count, batch, *shape, generator, **options):
        noise = torch.normal(0.0, 1.0, (count, 1, *shape), generator=source, **options)
        return noise.expand(-1, batch, *shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", randn)
        yield


@contextmanager
def watched_draws(broken):
    """Notes in ``broken`` ``[B]`` the samples of which a sampling solver met a value that is not finite."""
    vmap = torch.vmap

    def watched(function, **options):
        def call(samples):
            values = vmap(function, **options)(samples)
            broken.logical_or_(~values.isfinite().all(0))
            return values

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "vmap", watched)
        yield


def compared(name):
    # Which elite is drawn for execution is another draw for every row.
    return ("best_actions", "values", *(("mean", "std") if name in SAMPLING else ("actions",)))


# What first-order iterates make of rounding grows from step to step; in float64 it stays far below these.
AGREEMENT = dict(rtol=1e-6, atol=1e-7)


@every_solver
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("kind", [Quadratic, Latent])
@pytest.mark.parametrize("seed", range(2))
def test_a_batch_is_solved_as_each_sample_alone_and_in_any_order(name, bounds, kind, seed):
    optimizer = make_optimizer(name, bounds, damping=3.0)
    problem = kind(5, 2, 2, torch.float64, seed)

    def solve(part):
        with shared_draws(seed) if name in SAMPLING else nullcontext():
            return optimizer(part.objective, part.start, generator=torch.Generator().manual_seed(seed))

    together = solve(problem)
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = solve(problem.rows(order))
    for field in compared(name):
        torch.testing.assert_close(getattr(permuted, field), getattr(together, field)[order], **AGREEMENT)
    for index in range(5):
        alone = solve(problem.rows(slice(index, index + 1)))
        for field in compared(name):
            torch.testing.assert_close(getattr(alone, field)[0], getattr(together, field)[index], **AGREEMENT)


PLACES = ["z0", "start", "dynamics.0.weight", "dynamics.2.bias", "reward.0.weight", "value.2.weight"]


@every_solver
@few
@given(
    place=st.sampled_from(PLACES),
    bad=st.sampled_from(BAD),
    position=st.integers(0, 10**6),
    bounds=boxes,
    mode=modes,
    dtype=dtypes,
    step=steps,
)
def test_bad_numbers_give_finite_actions_and_a_true_count(
    latent_problem, name, place, bad, position, bounds, mode, dtype, step
):
    problem = latent_problem(batch=BATCH, dtype=dtype)
    optimizer = make_optimizer(name, bounds, step_size=step, backward_mode=mode)
    tensor = {**problem.captured, "start": problem.start}[place]
    tensor.data.view(-1)[position % tensor.numel()] = bad
    limit = float("inf") if optimizer.bounds is None and name not in SAMPLING else 1e6
    repaired = ~(problem.start.detach().abs() < limit).flatten(1).all(1)

    generator = torch.Generator().manual_seed(position)

    if name in SAMPLING:
        broken = repaired.clone()
        with watched_draws(broken):
            solution = optimizer(problem.objective, problem.start, generator=generator)
        assert_finite_and_inside(solution, "project")
        assert torch.equal(solution.failed, broken)
        return
    objective = Watched(problem.objective)
    solution = optimizer(objective, problem.start, generator=generator)
    assert_finite_and_inside(solution, optimizer.bounds)
    broken = repaired | objective.broken(curvature=name == "newton")
    if name == "theseus":
        # It may also be a matrix that float32 cannot factorise, which there is only for steep objectives.
        assert (solution.failed >= broken).all()
        assert (solution.failed <= (broken | objective.steep())).all()
    else:
        assert torch.equal(solution.failed, broken)


@every_solver
@few
@given(
    place=st.sampled_from(["z0", "start"]),
    bad=st.sampled_from(BAD),
    sample=st.integers(0, BATCH - 1),
    bounds=boxes,
    dtype=dtypes,
)
def test_a_broken_sample_changes_nothing_for_its_neighbours(latent_problem, name, place, bad, sample, bounds, dtype):
    problem = latent_problem(batch=BATCH, dtype=dtype)
    optimizer = make_optimizer(name, bounds)

    def solve():
        return optimizer(problem.objective, problem.start, generator=torch.Generator().manual_seed(0))

    clean = solve()
    {"z0": problem.z0, "start": problem.start}[place].data[sample].fill_(bad)
    solution = solve()
    others = [i for i in range(BATCH) if i != sample]
    for field in (*compared(name), "history", "failed"):
        assert torch.equal(getattr(solution, field)[others], getattr(clean, field)[others]), field
    assert solution.num_failed <= 1
    if bad != bad:
        assert solution.num_failed == 1


@pytest.mark.parametrize("name", ["lm", "theseus", "adam", "newton", "several starts"])
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("bad", BAD[:3])
@pytest.mark.parametrize("mode", ["unroll", "truncated", "implicit"])
def test_a_broken_sample_does_not_reach_the_shared_gradient(latent_problem, name, bounds, bad, mode):
    problem = latent_problem(batch=BATCH)
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    optimizer = make_optimizer(name, bounds, max_iterations=4, damping=3.0, backward_mode=mode)

    def solve(objective, start):
        return optimizer(objective, start, generator=torch.Generator().manual_seed(0))

    solution = solve(lambda actions: problem.objective(actions) + offsets, problem.start)
    assert solution.failed.tolist() == [False, True, False]
    assert torch.equal(solution.actions[1], problem.start[1])

    healthy = problem.rows(torch.tensor([0, 2]))
    weights = torch.randn(BATCH, 2, 2, dtype=torch.float64)
    parameters = list(problem.networks.parameters())

    def gradients(loss):
        return torch.autograd.grad(loss, parameters, materialize_grads=True)

    alone = solve(healthy.objective, healthy.start).actions
    expected = gradients((weights[[0, 2]] * alone).sum())
    for one, other in zip(gradients((weights * solution.actions).sum()), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["lm", "adam", "newton", "several starts"])
@pytest.mark.parametrize("mode", ["truncated", "implicit"])
@pytest.mark.parametrize("bad", BAD)
def test_a_broken_latent_state_does_not_reach_the_weights_through_gradients_written_by_hand(name, mode, bad):
    problem = Latent(BATCH, 2, 2, torch.float64, 0)
    parameters = [each for each in problem.model.parameters() if each.requires_grad]
    optimizer = make_optimizer(name, "project", damping=3.0, backward_mode=mode)

    def gradients(part, rows):
        solution = optimizer(part.objective, part.start, generator=torch.Generator().manual_seed(0))
        weights = torch.arange(1.0, 5.0, dtype=torch.float64).view(2, 2)
        loss = (weights * solution.actions[rows]).sum()
        return solution, torch.autograd.grad(loss, parameters, materialize_grads=True)

    _, expected = gradients(problem.rows(torch.tensor([0, 2])), slice(None))
    problem.z0[1, 0] = bad
    solution, found = gradients(problem, [0, 2] if abs(bad) == 1e30 else slice(None))
    assert solution.actions.isfinite().all()
    assert solution.failed.tolist()[::2] == [False, False]
    assert bool(solution.failed[1]) or abs(bad) == 1e30
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
