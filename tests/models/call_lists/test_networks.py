"""Networks as lists of calls, one alone and several side by side: against autograd, and what they refuse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models import LatentModel, LatentObjective
from difftori_gym.models.call_lists.layers import LAYERS, Copies
from difftori_gym.models.call_lists.networks import Network, network_of

FEW_AND_MANY = [5, 2050]
"""Rows; with many, even two numbers in a row are enough for operations to be chosen by arithmetic."""


def run(network: Network | None, x: Tensor, y: Tensor, gradient: Tensor, into: Tensor, **settings: bool) -> None:
    assert network is not None
    with torch.inference_mode():
        copies = Copies()
        forward, backward = network.place(x, y, gradient, into, copies, **settings)
        for call in (*copies.due, *forward, *backward):
            call()


@pytest.mark.parametrize("rows", FEW_AND_MANY)
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(3, 2)],
        [nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 2)],
        [nn.Linear(3, 4, bias=False), nn.LayerNorm(4, elementwise_affine=False), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ELU(0.5), nn.LayerNorm(4), nn.LayerNorm(4, bias=False), nn.ELU(), nn.Linear(4, 2)],
        [nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU())), nn.Sequential(), nn.Linear(4, 2)],
        [nn.Linear(3, 2), nn.ELU()],
        [nn.Linear(3, 4), nn.ELU(), nn.Tanh(), nn.Linear(4, 2)],
        [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False)],
    ],
)
def test_a_network_writes_the_output_and_adds_the_gradient(layers: list[nn.Module], rows: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(*layers).double()
    x, y, gradient, start = (torch.randn(rows, n, dtype=torch.float64) for n in (3, 2, 2, 3))
    given, point = x.clone(), x.clone().requires_grad_()
    expected = network(point)
    (to_input,) = torch.autograd.grad(expected, point, gradient)
    for add in (True, False):
        for fixed in (True, False):
            into = start.clone()
            run(network_of([network]), x, y, gradient, into, add=add, fixed=fixed)
            torch.testing.assert_close(y, expected)
            torch.testing.assert_close(into, start + to_input if add else to_input)
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
        lambda: [nn.Linear(3, 4), nn.LayerNorm(4, bias=False), nn.Linear(4, 1)],
    ],
)
def test_an_ensemble_writes_all_outputs_and_adds_the_gradient(layers: Any, count: int, rows: int) -> None:
    torch.manual_seed(0)
    members: list[nn.Module] = [nn.Sequential(*layers()).double() for _ in range(count)]
    for parameter in nn.ModuleList(members).parameters():
        nn.init.normal_(parameter)  # also LayerNorm's, which start all the same
    x, y, gradient, start = (torch.randn(rows, n, dtype=torch.float64) for n in (3, count, count, 3))
    into, point = start.clone(), x.clone().requires_grad_()
    run(network_of(members), x, y, gradient, into)
    expected = torch.cat([member(point) for member in members], dim=1)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(into - start, torch.autograd.grad(expected, point, gradient)[0])


@pytest.mark.parametrize("rows", FEW_AND_MANY)
def test_inputs_may_be_replaced_by_what_the_first_layer_makes_of_them(rows: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 4), nn.ELU(), nn.Linear(4, 1)).double()
    given, rest = torch.randn(rows, 3, dtype=torch.float64), torch.randn(rows, 2, dtype=torch.float64).requires_grad_()
    expected = network(torch.cat([given, rest], dim=1))
    with torch.no_grad():
        row = torch.cat([F.linear(given, network[0].weight[:, :3], network[0].bias), rest], dim=1)
    y, gradient, into = torch.empty_like(expected), torch.randn_like(expected), torch.zeros_like(row)
    run(network_of([network], shared=3), row, y, gradient, into)
    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(into[:, 4:], torch.autograd.grad(expected, rest, gradient)[0])


@pytest.mark.parametrize("rows", [1, 100])
def test_a_further_kind_of_layer_is_one_entry(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    def silu(column: list[Any], x: Tensor, y: Tensor, copies: Copies) -> Any:
        backward = torch.ops.aten.silu_backward.grad_input
        return [partial(torch.ops.aten.silu.out, x, out=y)], lambda g, into: [partial(backward, g, x, grad_input=into)]

    torch.manual_seed(0)
    model = LatentModel(4, 2, activation_fn=nn.SiLU).double()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.episodic = True
    z0, actions = torch.randn(rows, 4, dtype=torch.float64), torch.zeros(rows, 3, 2, dtype=torch.float64)
    slow = LatentObjective(model, z0, discount=0.9)
    assert slow._scans is None
    expected = slow.value_and_gradient(actions)
    monkeypatch.setitem(LAYERS, nn.SiLU, silu)
    fast = LatentObjective(copy_of(model), z0, discount=0.9)
    assert fast._scans is not None
    torch.testing.assert_close(fast.value_and_gradient(actions), expected)


def copy_of(model: LatentModel) -> LatentModel:
    other = LatentModel(4, 2, activation_fn=nn.SiLU).double()
    other.load_state_dict(model.state_dict())
    return other


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
    assert network_of([member, nn.Sequential(*other)]) is None


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * F.linear(x, self.weight, self.bias)


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [nn.ELU(), nn.Linear(2, 2)],
        [nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)],
        [nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)],
        [Doubled(2, 2)],
    ],
)
def test_a_network_of_other_layers_is_left_to_autograd(layers: list[nn.Module]) -> None:
    assert network_of([nn.Sequential(*layers)]) is None
