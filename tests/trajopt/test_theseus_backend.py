"""The Theseus back end: one mathematics with the closed form, Theseus's own classes, and samples kept apart."""

import subprocess
import sys

import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer

theseus = pytest.importorskip("theseus")

SIZES = {
    "tiny": dict(horizon=1, action_dim=1, latent_dim=3, width=8),
    "small": dict(horizon=3, action_dim=2, latent_dim=10, width=32),
    "wide": dict(horizon=5, action_dim=6, latent_dim=50, width=64),
}
# relative error allowed on actions and on each gradient
TOLERANCES = {torch.float32: (1e-4, 1e-3), torch.float64: (1e-8, 1e-6)}


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("mode", ["unroll", "truncated"])
@pytest.mark.parametrize("bounds", [None, "clamp"])
@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("size", SIZES)
def test_lm_and_theseus_agree(latent_problem, size, batch, bounds, mode, dtype):
    problem = latent_problem(batch=batch, dtype=dtype, seed=batch, **SIZES[size])
    lm = TrajectoryOptimizer(
        solver="lm",
        max_iterations=8,
        step_size=3e-4,
        damping=0.5,
        bounds=bounds,
        backward_mode=mode,
        backward_num_iterations=5,
    )
    solutions, gradients = {}, {}
    for solver in ("lm", "theseus"):
        solutions[solver] = lm.replace(solver=solver)(problem.objective, problem.start)
        gradients[solver] = problem.gradients(solutions[solver].actions, of_start=mode == "unroll")

    of_actions, of_gradients = TOLERANCES[dtype]
    for name in ("actions", "best_actions", "history", "values"):
        expected = getattr(solutions["theseus"], name).detach()
        assert relative_error(getattr(solutions["lm"], name).detach(), expected) < of_actions, name
    for name, expected in gradients["theseus"].items():
        assert expected.norm() > 0, name
        assert relative_error(gradients["lm"][name], expected) < of_gradients, name


@pytest.mark.parametrize("mode", ["unroll", "truncated"])
def test_the_layer_of_the_released_code_gives_the_same(latent_problem, mode):
    """The formulation of DiffTORI's authors: Theseus's AutoDiffCostFunction, latent states as an auxiliary variable."""
    problem = latent_problem(batch=3, horizon=3)
    plan = theseus.Vector(dof=6, name="plan", dtype=torch.float64)
    state = theseus.Vector(dof=4, name="state", dtype=torch.float64)

    def residual(optim_vars, aux_vars):
        actions = optim_vars[0].tensor.reshape(-1, 3, 2)
        return (1000.0 - problem.networks(aux_vars[0].tensor, actions))[:, None]

    weight = theseus.ScaleCostWeight(torch.ones(1, 1, dtype=torch.float64))
    nonlinear = theseus.Objective(dtype=torch.float64)
    nonlinear.add(
        theseus.AutoDiffCostFunction([plan], residual, 1, weight, aux_vars=[state], autograd_mode="vmap"),
    )
    layer = theseus.TheseusLayer(
        theseus.LevenbergMarquardt(
            nonlinear, max_iterations=6, step_size=3e-4, abs_err_tolerance=0.0, rel_err_tolerance=0.0
        )
    )
    found, _ = layer.forward(
        {"plan": problem.start.flatten(1), "state": problem.z0},
        optimizer_kwargs=dict(damping=0.5, backward_mode=mode, backward_num_iterations=3),
    )
    expected = found["plan"].reshape(3, 3, 2)

    ours = TrajectoryOptimizer(
        solver="theseus",
        max_iterations=6,
        step_size=3e-4,
        damping=0.5,
        bounds=None,
        backward_mode=mode,
        backward_num_iterations=3,
    )(problem.objective, problem.start)
    assert relative_error(ours.actions.detach(), expected.detach()) < 1e-10
    gradients = problem.gradients(ours.actions)
    for name, gradient in problem.gradients(expected).items():
        assert relative_error(gradients[name], gradient) < 1e-8, name


def test_the_solver_is_a_theseus_layer(latent_problem, monkeypatch):
    layers = []
    forward = theseus.TheseusLayer.forward
    monkeypatch.setattr(
        theseus.TheseusLayer,
        "forward",
        lambda self, *args, **kwargs: layers.append(self) or forward(self, *args, **kwargs),
    )
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="theseus", bounds=None, max_iterations=4, step_size=0.125)
    optimizer(problem.objective, problem.start)
    (layer,) = layers
    assert type(layer) is theseus.TheseusLayer
    assert type(layer.optimizer) is theseus.LevenbergMarquardt
    assert isinstance(layer.optimizer.linear_solver, theseus.CholeskyDenseSolver)
    assert (layer.optimizer.params.max_iterations, layer.optimizer.params.step_size) == (4, 0.125)


def test_every_iteration_is_run_although_nothing_changes():
    calls = []

    def flat(actions):
        calls.append(actions)
        return 0.0 * actions.sum(dim=(1, 2))

    solution = TrajectoryOptimizer(solver="theseus", bounds="clamp", max_iterations=9)(flat, torch.zeros(2, 1, 1))
    assert solution.history.shape == (2, 10)
    assert len(calls) > 9


def test_none_leaves_no_graph_and_runs_under_no_grad(latent_problem):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="theseus", bounds=None, step_size=3e-4, damping=0.5)
    solution = optimizer.replace(backward_mode="none")(problem.objective, problem.start)
    assert not solution.actions.requires_grad
    with torch.no_grad():
        truncated = optimizer(problem.objective, problem.start)
    assert torch.equal(truncated.actions, solution.actions)


@pytest.mark.parametrize("mode", ["unroll", "truncated", "none"])
def test_no_iterations_return_the_start(latent_problem, mode):
    problem = latent_problem()
    optimizer = TrajectoryOptimizer(solver="theseus", bounds=None, max_iterations=0, backward_mode=mode)
    solution = optimizer(problem.objective, problem.start)
    assert torch.equal(solution.actions, problem.start)
    assert solution.history.shape == (3, 1)


def test_a_sample_that_cannot_be_factorised_leaves_the_others_alone():
    # In float32 damping is lost beside 1e8, the matrix is exactly rank one, and Theseus raises for the whole batch.
    slopes = torch.tensor([1e4, 1.0, 0.5], requires_grad=True)
    start = torch.zeros(3, 2, 2)

    def objective(actions):
        return slopes * actions.sum(dim=(1, 2))

    lm = TrajectoryOptimizer(
        solver="lm", max_iterations=3, damping=1e-3, step_size=1e-4, bounds=None, backward_mode="unroll"
    )
    solution, expected = lm.replace(solver="theseus")(objective, start), lm(objective, start)
    assert solution.num_failed == 1
    assert torch.equal(solution.actions[0], start[0])
    torch.testing.assert_close(solution.actions[1:], expected.actions[1:], rtol=1e-3, atol=1e-6)
    (found,) = torch.autograd.grad(solution.actions.sum(), slopes)
    (wanted,) = torch.autograd.grad(expected.actions.sum(), slopes)
    assert found[0] == 0
    torch.testing.assert_close(found[1:], wanted[1:], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_sample_takes_no_step_and_is_counted(latent_problem, bad):
    problem = latent_problem()
    offsets = torch.tensor([0.0, bad, 0.0], dtype=torch.float64)
    lm = TrajectoryOptimizer(solver="theseus", max_iterations=3, step_size=3e-4, damping=0.5, bounds=None)
    clean = lm(problem.objective, problem.start)
    solution = lm(lambda actions: problem.objective(actions) + offsets, problem.start)
    assert solution.num_failed == 1
    assert torch.equal(solution.actions[1], problem.start[1])
    assert torch.equal(solution.actions[[0, 2]], clean.actions[[0, 2]])
    assert all(gradient.isfinite().all() for gradient in problem.gradients(solution.actions).values())


def test_the_box_is_refused():
    with pytest.raises(ValueError, match=r"bounds=None or 'clamp' for solver='theseus', got 'project'"):
        TrajectoryOptimizer(solver="theseus", bounds="project")


def test_theseus_missing_names_the_command(monkeypatch, latent_problem):
    monkeypatch.delitem(sys.modules, "difftori_gym.trajopt.theseus_backend", raising=False)
    monkeypatch.delattr("difftori_gym.trajopt.theseus_backend", raising=False)
    monkeypatch.setitem(sys.modules, "theseus", None)
    problem = latent_problem()
    command = r'pip install torch numpy setuptools wheel && pip install --no-build-isolation "difftori-gym\[theseus\]"'
    with pytest.raises(ImportError, match=command) as caught:
        TrajectoryOptimizer(solver="theseus", bounds=None)(problem.objective, problem.start)
    assert isinstance(caught.value.__cause__, ImportError)


def test_theseus_is_imported_at_the_first_solve_and_without_warnings():
    code = (
        "import sys, torch\n"
        "from difftori_gym.trajopt import TrajectoryOptimizer\n"
        "optimizer = TrajectoryOptimizer(solver='theseus', bounds='clamp', max_iterations=1)\n"
        "assert 'theseus' not in sys.modules\n"
        "optimizer(lambda actions: actions.sum((1, 2)), torch.zeros(2, 1, 1))\n"
        "assert 'theseus' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True, timeout=120)
