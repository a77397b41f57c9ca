"""Networks as lists of calls, one alone and several side by side: against autograd, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from difftori_gym.models.manual_ensemble import ensemble_with_backward
from difftori_gym.models.manual_gradient import with_backward
from difftori_gym.models.manual_layers import run

FEW_AND_MANY = [5, 2050]
"""Rows; with many, even two numbers in a row are enough for operations to be chosen by arithmetic."""


@pytest.mark.parametrize("rows", FEW_AND_MANY)
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 2)],
        [nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)],
        [nn.Linear(3, 4, bias=False), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ELU(0.5), nn.LayerNorm(4), nn.LayerNorm(4), nn.ELU(), nn.Linear(4, 2)],
        [nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU())), nn.Sequential(), nn.Linear(4, 2)],
    ],
)
def test_with_backward_writes_the_output_and_adds_the_gradient(layers: list[nn.Module], rows: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*layers).double()
    x, out, gradient, start = (torch.randn(rows, n, dtype=torch.float64) for n in (3, 2, 2, 3))
    given, onto = x.clone(), start.clone()
    with torch.inference_mode():
        covered = with_backward(network)
        assert covered is not None
        placed = covered.place(x, out, gradient, onto)
        run(placed.forward)
        run(placed.backward)
    point = given.clone().requires_grad_()
    expected = network(point)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(onto - start, torch.autograd.grad(expected, point, gradient)[0])
    torch.testing.assert_close(x, given, rtol=0, atol=0)


@pytest.mark.parametrize("rows", FEW_AND_MANY)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "layers",
    [
        lambda: [nn.Linear(3, 1)],
        lambda: [nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 1)],
        lambda: [nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 5, bias=False), nn.ELU(0.5), nn.Linear(5, 1)],
        lambda: [nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2), nn.LayerNorm(2, 1.0), nn.Linear(2, 1)],
    ],
)
def test_an_ensemble_writes_all_outputs_and_adds_the_gradient(layers: Any, count: int, rows: int) -> None:
    torch.manual_seed(0)
    members: list[nn.Module] = [nn.Sequential(*layers()).double() for _ in range(count)]
    for parameter in nn.ModuleList(members).parameters():
        nn.init.normal_(parameter)  # also LayerNorm's, which start all the same
    x, out, gradient, start = (torch.randn(rows, n, dtype=torch.float64) for n in (3, count, count, 3))
    onto = start.clone()
    with torch.inference_mode():
        covered = ensemble_with_backward(members)
        assert covered is not None
        placed = covered.place(x, out, gradient, onto)
        run(placed.forward)
        run(placed.backward)
    point = x.clone().requires_grad_()
    expected = torch.cat([member(point) for member in members], dim=1)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(onto - start, torch.autograd.grad(expected, point, gradient)[0])


@pytest.mark.parametrize(
    "other",
    [
        [nn.Linear(3, 5), nn.ELU(), nn.Linear(5, 1)],
        [nn.Linear(3, 4), nn.ELU(0.5), nn.Linear(4, 1)],
        [nn.Linear(3, 4), nn.Linear(4, 1)],
        [nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1)],
    ],
)
def test_an_ensemble_of_unlike_networks_is_left_to_autograd(other: list[nn.Module]) -> None:
    member = nn.Sequential(nn.Linear(3, 4), nn.ELU(), nn.Linear(4, 1))
    assert ensemble_with_backward([member, nn.Sequential(*other)]) is None
    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4, bias=False), nn.Linear(4, 1))
    assert ensemble_with_backward([plain, plain]) is None


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * F.linear(x, self.weight, self.bias)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [nn.ELU(), nn.Linear(2, 2)],
        [nn.Linear(2, 2), nn.ELU()],
        [nn.Linear(2, 2), nn.ELU(), nn.Tanh(), nn.Linear(2, 2)],
        [nn.Linear(2, 2), nn.Linear(2, 2, bias=False)],
        [nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)],
        [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)],
        [Doubled(2, 2)],
    ],
)
def test_with_backward_refuses_what_it_does_not_cover(layers: list[nn.Module]) -> None:
    assert with_backward(nn.Sequential(*layers)) is None
