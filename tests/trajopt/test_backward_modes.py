"""Every backward mode of every differentiable solver in one table, in float64, inside the box and at its walls."""

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer

# Enough iterations, of such a length, that each of them finds the optimum of the problems below.
CONVERGED = {
    "lm": dict(solver="lm", max_iterations=400, step_size=1e-2, damping=20.0, residual_offset=100.0),
    "theseus": dict(solver="theseus", max_iterations=400, step_size=1e-2, damping=20.0, residual_offset=100.0),
    "adam": dict(solver="adam", max_iterations=240, step_size=0.5),
    "newton": dict(solver="newton", max_iterations=20),
}
# A few iterations that do not get there, whose own derivative it is that counts.
SHORT = {
    "lm": dict(solver="lm", max_iterations=5, step_size=2e-3, damping=3.0),
    "theseus": dict(solver="theseus", max_iterations=5, step_size=2e-3, damping=3.0),
    "adam": dict(solver="adam", max_iterations=5, step_size=0.2),
}
MODES = ["unroll", "truncated", "implicit", "none"]
BOUNDS = [None, "clamp", "project"]


def make(settings, mode, bounds, **changes):
    if settings["solver"] == "theseus":
        pytest.importorskip("theseus")
        if bounds == "project":
            pytest.skip("Theseus knows no box")
    return TrajectoryOptimizer(**{**settings, "backward_mode": mode, "bounds": bounds, **changes})


class Peak:
    """A concave problem with learnable matrix and slope; its peak lies inside the box, or beyond a wall of sample 1."""

    def __init__(self, at_wall):
        self.root = torch.tensor([[1.3, 0.2], [-0.4, 0.9]], dtype=torch.float64, requires_grad=True)
        slope = [[0.4, -0.3], [5.0, 0.5] if at_wall else [-0.5, 0.2]]
        self.slope = torch.tensor(slope, dtype=torch.float64, requires_grad=True)
        self.start = torch.full((2, 1, 2), 0.1, dtype=torch.float64)

    @property
    def captured(self):
        return [self.root, self.slope]

    def objective(self, actions):
        a = actions.flatten(1)
        return (self.slope * a).sum(1) - 0.5 * (a @ self.root).square().sum(1) - 0.1 * a.pow(4).sum(1)

    def gradients(self, actions):
        weights = torch.tensor([[1.0, -0.7], [0.3, 1.1]], dtype=torch.float64)
        return torch.autograd.grad((weights * actions.flatten(1)).sum(), self.captured)

    def differences(self, solve, epsilon=1e-5):
        """Derivative of the same loss by every captured number, by central differences."""
        weights = torch.tensor([[1.0, -0.7], [0.3, 1.1]], dtype=torch.float64)
        found = []
        for tensor in self.captured:
            flat, slopes = tensor.data.view(-1), []
            for index in range(flat.numel()):
                origin, losses = flat[index].item(), []
                for sign in (1, -1):
                    flat[index] = origin + sign * epsilon
                    losses.append((weights * solve().detach().flatten(1)).sum())
                flat[index] = origin
                slopes.append((losses[0] - losses[1]) / (2 * epsilon))
            found.append(torch.stack(slopes).view_as(tensor))
        return found


@pytest.mark.parametrize("at_wall", [False, True], ids=["inside", "wall"])
@pytest.mark.parametrize("bounds", [None, "project"])
@pytest.mark.parametrize("name", CONVERGED)
def test_all_modes_agree_with_finite_differences_at_a_converged_optimum(name, bounds, at_wall):
    if at_wall and bounds is None:
        pytest.skip("without a box there is no wall")
    problem = Peak(at_wall)
    exact = TrajectoryOptimizer(solver="newton", max_iterations=30, backward_mode="none", bounds=bounds)
    optimum = exact(problem.objective, problem.start).actions
    expected = problem.differences(lambda: exact(problem.objective, problem.start).actions)
    assert ((optimum.abs() == 1).any().item(), (optimum.abs() < 1).any().item()) == (at_wall, True)
    assert all(each.abs().max() > 0.1 for each in expected)

    for mode, changes in (("unroll", {}), ("truncated", dict(backward_num_iterations=10**6)), ("implicit", {})):
        optimizer = make(CONVERGED[name], mode, bounds, **changes)
        solution = optimizer(problem.objective, problem.start)
        torch.testing.assert_close(solution.actions.detach(), optimum, rtol=0, atol=1e-6)
        if mode == "implicit":
            assert solution.stationary.all()
        # The last steps of a search are steps of rounding, whose lengths and hence derivatives are less exact.
        for one, other in zip(problem.gradients(solution.actions), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3, msg=lambda text, m=mode: f"{m}: {text}")


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("mode", ["unroll", "truncated"])
@pytest.mark.parametrize("name", SHORT)
def test_the_derivative_of_a_few_iterations_is_that_of_the_whole_solver(
    latent_problem, finite_differences, name, mode, bounds
):
    # Nothing is chosen on the way, so the solver itself can be differenced. newton, which chooses, is differenced with
    # its choices held, in its own tests.
    problem = latent_problem(batch=4, horizon=2, seed=3)
    optimizer = make(SHORT[name], mode, bounds, backward_num_iterations=5)
    with torch.no_grad():
        problem.start[:2, 0] = 1.0 if bounds == "project" else 0.9
    solution = optimizer(problem.objective, problem.start)
    if bounds == "project":
        assert (solution.actions.abs() == 1).any(), "no iterate rests on a wall"
        assert (solution.actions.abs() < 1).any()
    finite_differences(
        problem,
        problem.gradients(solution.actions),
        lambda: optimizer(problem.objective, problem.start).actions.detach(),
    )


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("name", ["lm", "adam", "newton"])
def test_truncated_over_all_iterations_is_unroll(latent_problem, name, bounds):
    problem = latent_problem(batch=4, seed=3)
    unroll = make({**CONVERGED[name], "max_iterations": 6}, "unroll", bounds)
    truncated = unroll.replace(backward_mode="truncated", backward_num_iterations=6)
    expected = problem.gradients(unroll(problem.objective, problem.start).actions, of_start=True)
    found = problem.gradients(truncated(problem.objective, problem.start).actions, of_start=True)
    for key in expected:
        assert torch.equal(found[key], expected[key])


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONVERGED)
def test_the_mode_changes_the_derivative_and_no_number(latent_problem, name, mode, bounds):
    problem = latent_problem(batch=4, seed=3)
    settings = {**CONVERGED[name], "max_iterations": 6}
    expected = make(settings, "none", bounds)(problem.objective, problem.start)
    solution = make(settings, mode, bounds)(problem.objective, problem.start)
    for field in ("actions", "best_actions", "values", "history", "failed"):
        assert torch.equal(getattr(solution, field), getattr(expected, field)), field
    assert solution.actions.requires_grad == (mode != "none")
    assert (solution.stationary is None) == (mode != "implicit")


@pytest.mark.parametrize("solver", ["mppi", "cem"])
def test_what_is_sampled_has_no_derivative(latent_problem, solver):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=1, num_samples=4, num_elites=2)
    for mode in ("unroll", "truncated", "none"):
        assert not optimizer.replace(backward_mode=mode)(problem.objective, problem.start).actions.requires_grad
    with pytest.raises(ValueError, match=r"backward_mode='none' for the sampling solver .*, got 'implicit'"):
        optimizer.replace(backward_mode="implicit")
