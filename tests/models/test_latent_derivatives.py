"""Derivatives of the imagined return's gradient, which a differentiated iteration and Newton's method ask for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftori_gym.models import LatentModel, LatentObjective, latent_return
from difftori_gym.trajopt import TrajectoryOptimizer

Z, A, DISCOUNT = 6, 2, 0.97


def make_model(arch: tuple[int, ...] = (8,), dtype: torch.dtype = torch.float64, **settings: Any) -> LatentModel:
    torch.manual_seed(0)
    archs = {f"{name}_arch": arch for name in ("dynamics", "reward", "qf", "pi")}
    model = LatentModel(Z, A, **{**archs, **settings}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def derivatives(model: LatentModel, z0: Tensor, actions: Tensor, by_definition: bool) -> list[Tensor]:
    """Value, gradient, and the derivatives of a weighted sum of both in actions, z0 and every parameter."""
    z0, actions = z0.clone().requires_grad_(), actions.clone().requires_grad_()
    if by_definition:
        value = latent_return(model, z0, actions, discount=DISCOUNT)
    else:
        value = LatentObjective(model, z0, discount=DISCOUNT)(actions)
    (gradient,) = torch.autograd.grad(value.sum(), actions, create_graph=True)
    torch.manual_seed(1)
    loss = (value * torch.randn_like(value)).sum() + (gradient * torch.randn_like(gradient)).sum()
    found = torch.autograd.grad(loss, [actions, z0, *model.parameters()], materialize_grads=True, allow_unused=True)
    return [value.detach(), gradient.detach(), *found]


def assert_equal(model: LatentModel, batch: int, horizon: int, tolerance: float = 1e-9) -> None:
    dtype = next(model.parameters()).dtype
    z0, actions = torch.randn(batch, Z, dtype=dtype), 2 * torch.rand(batch, horizon, A, dtype=dtype) - 1
    pairs = zip(derivatives(model, z0, actions, False), derivatives(model, z0, actions, True), strict=True)
    for found, expected in pairs:
        scale = max(float(expected.abs().max()), 1e-3)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("arch", [(), (8,), (8, 9, 7)])
@pytest.mark.parametrize("n_critics", [1, 3])
@pytest.mark.parametrize("activation_fn", [nn.ELU, nn.ReLU, nn.Tanh, nn.SiLU])
@pytest.mark.parametrize("episodic", [False, True])
@pytest.mark.parametrize(("batch", "horizon"), [(1, 1), (1, 3), (5, 4)])
def test_second_derivatives_are_those_of_the_return(
    arch: tuple[int, ...], n_critics: int, activation_fn: type[nn.Module], episodic: bool, batch: int, horizon: int
) -> None:
    model = make_model(arch, n_critics=n_critics, activation_fn=activation_fn)
    model.episodic = episodic
    assert_equal(model, batch, horizon)


@pytest.mark.parametrize("batch", [1, 70])
def test_in_single_precision(batch: int) -> None:
    assert_equal(make_model((64, 64), torch.float32), batch, 4, tolerance=2e-4)


@pytest.mark.parametrize("episodic", [False, True])
def test_finite_differences_of_the_gradient(episodic: bool) -> None:
    model = make_model((8, 8))
    model.episodic = episodic
    z0 = torch.randn(2, Z, dtype=torch.float64)

    def value_and_gradient(actions: Tensor, z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        model.dynamics[0].weight = weight
        value = LatentObjective(model, z, discount=DISCOUNT)(actions)
        return value, torch.autograd.grad(value.sum(), actions, create_graph=True)[0]

    weight = model.dynamics[0].weight
    actions = (torch.rand(2, 3, A, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(value_and_gradient, (actions, z0.requires_grad_(), weight), atol=1e-5)


@pytest.mark.parametrize("solver", ["lm", "adam", "newton"])
@pytest.mark.parametrize("episodic", [False, True])
def test_a_broken_sample_gives_the_parameters_nothing(solver: str, episodic: bool) -> None:
    model = make_model((8, 8))
    model.episodic = episodic
    z0, actions = torch.randn(4, Z, dtype=torch.float64), torch.zeros(4, 3, A, dtype=torch.float64)
    optimizer = TrajectoryOptimizer(solver=solver, max_iterations=3, num_starts=1, backward_mode="unroll")

    def weight_gradient(states: Tensor, keep: Tensor) -> Tensor:
        solution = optimizer(LatentObjective(model, states, discount=DISCOUNT), actions[: len(states)])
        return torch.autograd.grad(solution.actions[keep].square().sum(), model.dynamics[0].weight)[0]

    broken = z0.clone()
    broken[2] = torch.nan
    kept = torch.tensor([True, True, False, True])
    torch.testing.assert_close(weight_gradient(broken, kept), weight_gradient(z0[kept], torch.ones(3, dtype=bool)))


@pytest.mark.parametrize("solver", ["lm", "adam"])
def test_a_differentiated_plan_is_the_plan(solver: str) -> None:
    """Its iterations without a graph, by lists of calls, and those with one, by autograd, are of the same numbers."""
    model = make_model((8, 8))
    model.episodic = True
    objective = LatentObjective(model, torch.randn(3, Z, dtype=torch.float64), discount=DISCOUNT)
    start = torch.zeros(3, 3, A, dtype=torch.float64)
    plans = [
        TrajectoryOptimizer(solver=solver, num_starts=1, max_iterations=6, backward_mode=mode)(objective, start).actions
        for mode in ("none", "truncated", "unroll")
    ]
    for plan in plans[1:]:
        torch.testing.assert_close(plan, plans[0], rtol=0, atol=1e-10)
