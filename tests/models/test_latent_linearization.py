"""The imagined return with hand-written second derivatives, against autograd's."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difftori_gym.models import LatentModel, LatentObjective
from difftori_gym.models.manual_curvature import NetworkTape, parameter_gradients
from difftori_gym.models.manual_gradient import covered_layers

Z, A, DISCOUNT = 6, 2, 0.97


def make_model(arch: tuple[int, ...] = (8,), dtype: torch.dtype = torch.float64, **settings: Any) -> LatentModel:
    torch.manual_seed(0)
    archs = {f"{name}_arch": arch for name in ("dynamics", "reward", "qf", "pi")}
    model = LatentModel(Z, A, **{**archs, **settings}).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def derivatives(model: LatentModel, z0: Tensor, actions: Tensor, by_hand: bool) -> list[Tensor]:
    """Value, gradient, and the derivatives of a weighted sum of both in actions, z0 and every parameter."""
    z0, actions = z0.clone().requires_grad_(), actions.clone().requires_grad_()
    objective = LatentObjective(model, z0, discount=DISCOUNT)
    if by_hand:
        found = objective.differentiable_value_and_gradient(actions)
        assert found is not None
        value, gradient = found
    else:
        value = objective(actions)
        (gradient,) = torch.autograd.grad(value.sum(), actions, create_graph=True)
    torch.manual_seed(1)
    loss = (value * torch.randn_like(value)).sum() + (gradient * torch.randn_like(gradient)).sum()
    networks = (model.dynamics, model.reward, model.actor, *model.critic.members)
    parameters = chain.from_iterable(network.parameters() for network in networks)
    found_all = torch.autograd.grad(loss, [actions, z0, *parameters], materialize_grads=True)
    return [value.detach(), gradient.detach(), *found_all]


def assert_equal(model: LatentModel, batch: int, horizon: int, tolerance: float = 1e-9) -> None:
    dtype = next(model.parameters()).dtype
    z0, actions = torch.randn(batch, Z, dtype=dtype), 2 * torch.rand(batch, horizon, A, dtype=dtype) - 1
    pairs = zip(derivatives(model, z0, actions, True), derivatives(model, z0, actions, False), strict=True)
    for by_hand, by_autograd in pairs:
        scale = max(float(by_autograd.abs().max()), 1e-3)
        torch.testing.assert_close(by_hand, by_autograd, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("arch", [(), (8,), (8, 9), (8, 9, 7)])
@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("activation_fn", [nn.ELU, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize(("batch", "horizon"), [(1, 1), (1, 3), (5, 4), (40, 2)])
def test_second_derivatives_equal_autograd_s(
    arch: tuple[int, ...], n_critics: int, activation_fn: type[nn.Module], batch: int, horizon: int
) -> None:
    assert_equal(make_model(arch, n_critics=n_critics, activation_fn=activation_fn), batch, horizon)


def test_so_many_rows_that_elu_is_an_exponential() -> None:
    assert_equal(make_model((8, 9)), 600, 2)


@pytest.mark.parametrize("batch", [1, 70])
def test_in_single_precision(batch: int) -> None:
    assert_equal(make_model((64, 64), torch.float32), batch, 4, tolerance=2e-4)


def test_finite_differences_of_the_gradient() -> None:
    model = make_model((8, 8))
    z0 = torch.randn(2, Z, dtype=torch.float64)

    def value_and_gradient(actions: Tensor, z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        model.dynamics[0].weight = weight
        found = LatentObjective(model, z, discount=DISCOUNT).differentiable_value_and_gradient(actions)
        assert found is not None
        return found

    weight = model.dynamics[0].weight
    actions = (torch.rand(2, 3, A, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(value_and_gradient, (actions, z0.requires_grad_(), weight), atol=1e-5)


def test_a_broken_sample_gives_the_parameters_nothing() -> None:
    model = make_model((8, 8))
    z0, actions = torch.randn(4, Z, dtype=torch.float64), torch.zeros(4, 3, A, dtype=torch.float64)

    def weight_gradient(states: Tensor, keep: Tensor) -> Tensor:
        objective = LatentObjective(model, states, discount=DISCOUNT)
        found = objective.differentiable_value_and_gradient(actions[: len(states)].clone().requires_grad_())
        assert found is not None
        loss = torch.where(keep[:, None, None], found[1], 0.0).square().sum()
        return torch.autograd.grad(loss, model.dynamics[0].weight)[0]

    broken = z0.clone()
    broken[2] = torch.nan
    kept = torch.tensor([True, True, False, True])
    torch.testing.assert_close(weight_gradient(broken, kept), weight_gradient(z0[kept], torch.ones(3, dtype=bool)))


def test_a_graph_may_be_used_again_but_not_differentiated_twice() -> None:
    objective = LatentObjective(make_model(), torch.randn(1, Z, dtype=torch.float64), discount=DISCOUNT)
    actions = torch.zeros(1, 2, A, dtype=torch.float64, requires_grad=True)
    found = objective.differentiable_value_and_gradient(actions)
    assert found is not None
    first, again = (torch.autograd.grad(found[1].sum(), actions, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (second,) = torch.autograd.grad((weight * found[1]).sum(), actions, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def test_what_is_not_covered_is_left_to_autograd() -> None:
    model = make_model(activation_fn=nn.SiLU)
    objective = LatentObjective(model, torch.randn(1, Z, dtype=torch.float64), discount=DISCOUNT)
    assert objective.differentiable_value_and_gradient(torch.zeros(1, 2, A, dtype=torch.float64)) is None


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 2)],
        [nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)],
        [nn.Linear(3, 4, bias=False), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ELU(0.5), nn.LayerNorm(4, bias=False), nn.LayerNorm(4), nn.ELU(), nn.Linear(4, 2)],
    ],
)
@pytest.mark.parametrize("calls", [1, 3])
def test_parameter_gradients_over_several_calls(layers: list[nn.Module], calls: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*layers).double()
    covered = covered_layers(network)
    assert covered is not None
    tapes, loss = [], torch.zeros((), dtype=torch.float64)
    for _ in range(calls):
        x, u = torch.randn(2, 5, 3, dtype=torch.float64)
        weight, seed = torch.randn(2, 5, 2, dtype=torch.float64)
        tape = NetworkTape(covered)
        with torch.no_grad():
            tape.forward(x), tape.backward(weight), tape.tangent(u), tape.tangent_backward(seed)
        tapes.append(tape)
        point = x.clone().requires_grad_()
        output = network(point)
        (gradient,) = torch.autograd.grad(output, point, weight, create_graph=True)
        loss = loss + (gradient * u).sum() + (output * seed).sum()
    expected = torch.autograd.grad(loss, list(network.parameters()), materialize_grads=True)
    with torch.no_grad():
        found = parameter_gradients(tapes)
    for number, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(number, reference)
