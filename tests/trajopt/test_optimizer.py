"""The call and its settings: what is refused, and that the message says what to do."""

import dataclasses

import numpy as np
import pytest
import torch

from difftori_gym.trajopt import TrajectoryOptimizer


def total(actions):
    return actions.sum(dim=(1, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(solver="sgd"), r"solver to be one of 'lm', 'theseus', 'adam', 'newton', 'mppi', 'cem', got 'sgd'"),
        (dict(bounds="box"), r"bounds to be one of None, 'project', 'clamp', got 'box'"),
        (dict(wall_gradient="none"), r"wall_gradient to be one of 'exact', 'inward', got 'none'"),
        (dict(backward_mode="all"), r"backward_mode to be one of 'unroll', 'truncated', 'implicit', 'none', got 'all'"),
        (dict(solver="mppi", backward_mode="implicit"), r"backward_mode='none' for .* 'mppi', got 'implicit': .* Use"),
        (dict(solver="cem", backward_mode="implicit"), r"backward_mode='none' for .* 'cem', got 'implicit': .* Use"),
        (dict(stationarity_tolerance=0.0), r"finite number stationarity_tolerance > 0, got 0.0"),
        (dict(max_iterations=-1), r"integer max_iterations >= 0, got -1"),
        (dict(max_iterations=2.0), r"integer max_iterations >= 0, got 2.0"),
        (dict(max_iterations=True), r"integer max_iterations >= 0, got True"),
        (dict(backward_num_iterations=0), r"integer backward_num_iterations >= 1, got 0"),
        (dict(num_starts=0), r"integer num_starts >= 1, got 0"),
        (dict(num_samples=0), r"integer num_samples >= 1, got 0"),
        (dict(num_elites=0), r"integer num_elites >= 1, got 0"),
        (dict(step_size=0.0), r"finite number step_size > 0, got 0.0"),
        (dict(step_size=-1e-3), r"finite number step_size > 0, got -0.001"),
        (dict(step_size=float("nan")), r"finite number step_size > 0, got nan"),
        (dict(step_size="1e-3"), r"finite number step_size > 0, got '1e-3'"),
        (dict(damping=-1e-3), r"finite number damping > 0, got -0.001"),
        (dict(damping=float("inf")), r"finite number damping > 0, got inf"),
        (dict(residual_offset=float("nan")), r"finite number residual_offset above every value, got nan"),
        (dict(temperature=0), r"finite number temperature > 0, got 0"),
        (dict(momentum=1.0), r"finite number momentum in \[0, 1\), got 1.0"),
        (dict(min_std=1.0, max_std=0.5), r"min_std <= max_std, got 1.0 > 0.5"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrajectoryOptimizer(**settings)
    if "min_std" not in settings:
        with pytest.raises(ValueError, match=message):
            TrajectoryOptimizer().replace(**settings)


def test_numbers_of_numpy_are_numbers():
    optimizer = TrajectoryOptimizer(max_iterations=np.int64(3), step_size=np.float32(0.01))
    assert optimizer(total, torch.zeros(1, 1, 1)).history.shape == (1, 4)


def test_settings_are_frozen_and_copied():
    optimizer = TrajectoryOptimizer(damping=0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        optimizer.damping = 1.0  # type: ignore[misc]
    assert optimizer.replace(step_size=0.1) == TrajectoryOptimizer(damping=0.5, step_size=0.1)
    with pytest.raises(TypeError, match="iterations"):
        optimizer.replace(iterations=3)


@pytest.mark.parametrize("solver", ["lm", "mppi", "cem"])
@pytest.mark.parametrize(
    "start",
    [
        torch.zeros(3, 2),
        torch.zeros(1, 2, 3, 4),
        torch.zeros(2, 0, 3),
        torch.zeros(2, 3, 0),
        torch.zeros(2, 3, 1, dtype=torch.int64),
        torch.zeros(2, 3, 1, dtype=torch.float16),
    ],
    ids=lambda start: f"{list(start.shape)}-{start.dtype}",
)
def test_starts_of_another_shape_or_dtype_are_refused(solver, start):
    with pytest.raises(
        ValueError, match=r"shape \[batch, horizon >= 1, action_dim >= 1\] and dtype float32 or float64"
    ):
        TrajectoryOptimizer(solver=solver)(total, start)


@pytest.mark.parametrize("solver", ["lm", "theseus", "mppi", "cem"])
@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda a: a.sum(dim=2), r"one value per sample, shape \[2\] torch.float32, got \[2, 3\]"),
        (lambda a: a.sum(dim=(1, 2))[:, None], r"got \[2, 1\] torch.float32"),
        (lambda a: a.sum(), r"got \[\] torch.float32"),
        (lambda a: a.sum(dim=(1, 2)).double(), r"got \[2\] torch.float64 .* cast"),
        (lambda a: 1.0, r"to return a tensor, got float"),
    ],
)
def test_objectives_of_another_shape_are_refused(solver, objective, message):
    bounds = "clamp" if solver == "theseus" else "project"
    if solver == "theseus":
        pytest.importorskip("theseus")
    with pytest.raises(ValueError, match=message):
        TrajectoryOptimizer(solver=solver, bounds=bounds)(objective, torch.zeros(2, 3, 1))


@pytest.mark.parametrize("mode", ["unroll", "truncated", "implicit", "none"])
@pytest.mark.parametrize("solver", ["lm", "adam", "newton"])
def test_objectives_without_a_gradient_are_refused(solver, mode):
    weight = torch.ones(2, requires_grad=True)
    optimizer = TrajectoryOptimizer(solver=solver, backward_mode=mode)
    with pytest.raises(ValueError, match=r"differentiable in the actions, got values without a graph"):
        optimizer(lambda actions: total(actions.detach()), torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match=r"depend on the actions"):
        optimizer(lambda actions: weight * 2, torch.zeros(2, 3, 1))
    with pytest.raises(ValueError, match=r"inference_mode"), torch.inference_mode():
        optimizer(total, torch.zeros(2, 3, 1))


def test_what_is_left_out_is_the_solver_s_own():
    def chosen(**settings):
        optimizer = TrajectoryOptimizer(**settings)
        return optimizer.solver, optimizer.max_iterations, optimizer.step_size, optimizer.num_starts

    assert chosen() == chosen(solver="adam") == ("adam", None, 0.5, 6)
    assert chosen(solver="lm") == ("lm", 10, 1e-3, 1)
    assert chosen(solver="mppi") == ("mppi", 6, 1e-3, 1)
    assert chosen(max_iterations=0) == ("adam", 0, 0.5, 1)  # the start is the answer, and no other one
    for horizon, iterations in ((1, 11), (3, 13), (30, 25)):
        solution = TrajectoryOptimizer(num_starts=1)(total, torch.zeros(2, horizon, 1))
        assert solution.history.shape == (2, iterations + 1)
    assert chosen(solver="adam", max_iterations=4, step_size=0.1, num_starts=2) == ("adam", 4, 0.1, 2)


def test_an_objectives_own_gradient_needs_the_shape_of_the_actions():
    class Objective:
        def __call__(self, actions):
            return total(actions)

        def value_and_gradient(self, actions):
            return total(actions), torch.ones(2, 3)

    with pytest.raises(ValueError, match=r"'s value_and_gradient .* gradient of shape \[2, 3, 1\], got \[2, 3\]"):
        TrajectoryOptimizer(solver="lm", backward_mode="none")(Objective(), torch.zeros(2, 3, 1))


@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_an_objectives_own_values_serve_the_last_iterate(solver):
    class Objective:
        values = torch.tensor([7.0, 8.0])

        def __call__(self, actions):
            return total(actions)

        def value_only(self, actions):
            return self.values

    optimizer = TrajectoryOptimizer(solver=solver, num_starts=1)
    objective, start = Objective(), torch.zeros(2, 3, 1)
    assert optimizer(objective, start).history[:, -1].tolist() == [7.0, 8.0]
    # Clamped actions are not what it would be asked with.
    assert optimizer.replace(bounds="clamp")(objective, start).history[:, -1].tolist() != [7.0, 8.0]
    objective.values = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"shape \[2\] .* got \[2, 1\]"):
        optimizer(objective, start)


@pytest.mark.parametrize("solver", ["lm", "adam", "mppi", "cem"])
def test_candidates_need_the_right_shape(solver):
    start = torch.zeros(2, 3, 1)
    for shape in ((2, 3, 1), (5, 2, 4, 1)):
        with pytest.raises(ValueError, match=r"candidates need shape \[N, 2, 3, 1\] .*, got"):
            TrajectoryOptimizer(solver=solver)(total, start, candidates=torch.zeros(shape))


def test_errors_of_the_objective_itself_pass_through():
    def broken(actions):
        raise RuntimeError("the model's own error")

    for solver in ("lm", "mppi", "cem"):
        with pytest.raises(RuntimeError, match="the model's own error"):
            TrajectoryOptimizer(solver=solver)(broken, torch.zeros(2, 3, 1))


class Offering:
    """An objective with all that one may offer, which offers nothing after all, and notes what it was asked for."""

    def __init__(self, answers):
        self.answers, self.asked = answers, set()

    def __call__(self, actions):
        return -(actions - 0.3).square().sum(dim=(1, 2))

    def __getattr__(self, name):
        if name not in ("value_and_gradient", "value_only", "repeat"):
            raise AttributeError(name)

        def method(argument):
            self.asked.add(name)

        return method if self.answers else None


@pytest.mark.parametrize("mode", ["unroll", "truncated", "implicit", "none"])
@pytest.mark.parametrize("solver", ["lm", "adam", "newton"])
def test_an_objective_may_answer_none_to_all_it_is_asked_for(solver, mode):
    optimizer = TrajectoryOptimizer(solver=solver, num_starts=2, max_iterations=4, backward_mode=mode)
    objective, start = Offering(answers=True), torch.zeros(2, 2, 1)
    found, expected = optimizer(objective, start), optimizer(objective.__call__, start)
    assert torch.equal(found.actions, expected.actions)
    assert torch.equal(found.history, expected.history)
    assert {"value_and_gradient", "repeat"} <= objective.asked
    assert torch.equal(optimizer(Offering(answers=False), start).actions, expected.actions)
