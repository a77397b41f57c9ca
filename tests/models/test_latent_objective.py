"""The hand-written gradient of the imagined return, against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from difftori_gym.models import LatentModel, LatentObjective
from difftori_gym.models.manual_gradient import with_backward


def make_model(arch: tuple[int, ...], n_critics: int = 2, activation_fn: type[nn.Module] = nn.ELU) -> LatentModel:
    torch.manual_seed(0)
    model = LatentModel(
        6,
        2,
        dynamics_arch=arch,
        reward_arch=arch,
        qf_arch=arch,
        pi_arch=arch,
        n_critics=n_critics,
        activation_fn=activation_fn,
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():  # the last layers start at zero, where a gradient could hide
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def by_autograd(objective: LatentObjective, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    point = actions.clone().requires_grad_()
    value = objective(point)
    return value.detach(), torch.autograd.grad(value.sum(), point)[0]


@pytest.mark.parametrize("arch", [(), (8,), (8, 9), (8, 9, 7)])
@pytest.mark.parametrize("n_critics", [1, 2, 3])
@pytest.mark.parametrize("activation_fn", [nn.ELU, nn.ReLU, nn.Tanh])
@pytest.mark.parametrize(("batch", "horizon"), [(1, 1), (5, 4)])
def test_equals_autograd(
    arch: tuple[int, ...], n_critics: int, activation_fn: type[nn.Module], batch: int, horizon: int
) -> None:
    model = make_model(arch, n_critics, activation_fn)
    objective = LatentObjective(model, torch.randn(batch, 6, dtype=torch.float64), discount=0.97)
    assert objective._layers, "this model is meant to take the hand-written path"
    actions = 2 * torch.rand(batch, horizon, 2, dtype=torch.float64) - 1
    value, gradient = objective.value_and_gradient(actions)
    expected_value, expected_gradient = by_autograd(objective, actions)
    assert gradient.abs().max() > 1e-3
    torch.testing.assert_close(value, expected_value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-12)
    assert not value.requires_grad
    assert not gradient.requires_grad


@pytest.mark.parametrize("case", ["unknown activation", "episodic", "hooked"])
def test_falls_back_to_autograd(case: str) -> None:
    model = make_model((8,), activation_fn=nn.SiLU if case == "unknown activation" else nn.ELU)
    model.episodic = case == "episodic"
    if case == "hooked":
        model.dynamics[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    objective = LatentObjective(model, torch.randn(3, 6, dtype=torch.float64), discount=0.97)
    assert not objective._layers
    actions = 2 * torch.rand(3, 2, 2, dtype=torch.float64) - 1
    with torch.no_grad():
        value, gradient = objective.value_and_gradient(actions)
    expected_value, expected_gradient = by_autograd(objective, actions)
    torch.testing.assert_close(value, expected_value)
    torch.testing.assert_close(gradient, expected_gradient)


def test_follows_the_weights() -> None:
    model = make_model((8,))
    z = torch.randn(2, 6, dtype=torch.float64)
    actions = torch.zeros(2, 3, 2, dtype=torch.float64)
    before = LatentObjective(model, z, discount=0.9).value_and_gradient(actions)[0]
    with torch.no_grad():
        model.reward[0].weight.mul_(2.0)
    objective = LatentObjective(model, z, discount=0.9)
    after = objective.value_and_gradient(actions)[0]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, objective(actions).detach())


def test_with_backward_refuses_what_it_does_not_know() -> None:
    assert with_backward(nn.Sequential(nn.Linear(2, 2), nn.Dropout())) is None
    assert with_backward(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) is None
