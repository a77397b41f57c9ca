"""
Networks of one shape side by side, as lists of calls: what the members of an ensemble share is called once for all.

The rows of a layer's input and output are those of all members, ``[B, N * n]``. The first layer is one product, because
all members read the same input, and so is what they add to its gradient; activations and LayerNorm go over all rows at
once. The products in between stay one for each member.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from difftori_gym.models.manual_gradient import Network, between, covered_layers
from difftori_gym.models.manual_layers import LAYERS, Layer, Operation, Placed, layer_norm_backward, linear


def ensemble_with_backward(members: list[nn.Module]) -> Network | None:
    """
    :param members: N networks of the same layers with one output each, see :func:`with_backward`
    :return: a network with the output ``[B, N]`` of all members, to be placed; None if they differ in more than their
        weights, or :func:`covered_layers` does not cover them
    """
    covered = [modules for modules in map(covered_layers, members) if modules is not None]
    if len(covered) < len(members) or any(repr(modules) != repr(covered[0]) for modules in covered):
        return None
    columns: list[list[Any]] = [list(column) for column in zip(*covered, strict=True)]
    first, *others = columns
    if any(isinstance(column[0], nn.LayerNorm) and column[0].bias is None for column in others):
        return None
    copies: list[Operation] = []
    weight = _joined(first, "weight", copies)
    bias = None if first[0].bias is None else _joined(first, "bias", copies)
    layers = [linear(weight, bias, copies), *(_beside(column, copies) for column in others)]
    return between(layers, weight, copies)


def _joined(modules: list[Any], name: str, copies: list[Operation]) -> Tensor:
    parts = [getattr(module, name).detach() for module in modules]
    joined = torch.cat(parts)
    copies.append(partial(torch.cat, parts, out=joined))
    return joined


def _beside(column: list[Any], copies: list[Operation]) -> Layer:
    place = _BESIDE.get(type(column[0]))
    # An activation has no weights, and does not mind whose numbers it is given.
    return LAYERS[type(column[0])](column[0], copies) if place is None else place(column, copies)


def _products(modules: list[nn.Linear], copies: list[Operation]) -> Layer:
    count, layers = len(modules), [linear(module.weight, module.bias, copies) for module in modules]

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        y = x.new_empty(x.shape[0], count * modules[0].out_features) if out is None else out
        placed = [layer(*each) for layer, *each in zip(layers, x.chunk(count, 1), y.chunk(count, 1), strict=True)]

        def backward(gradient: Tensor) -> tuple[Tensor, list[Operation]]:
            before = x.new_empty(x.shape)
            each = zip(gradient.chunk(count, 1), modules, before.chunk(count, 1), strict=True)
            return before, [partial(torch.mm, share, module.weight, out=part) for share, module, part in each]

        return Placed(y, [operation for each in placed for operation in each.forward], backward)

    return place


def _layer_norms(modules: list[nn.LayerNorm], copies: list[Operation]) -> Layer:
    shape, eps = list(modules[0].normalized_shape), modules[0].eps
    weight, bias = (_joined(modules, name, copies) for name in ("weight", "bias"))

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        y, apart = x.new_empty(x.shape), x.view(-1, len(modules), *shape)
        statistics: list[Tensor] = []  # mean, and reciprocal deviation

        def forward() -> None:
            normed, *statistics[:] = torch.native_layer_norm(apart, shape, None, None, eps)
            torch.addcmul(bias, normed.view(x.shape), weight, out=y)

        def backward(gradient: Tensor) -> tuple[Tensor, list[Operation]]:
            scaled, before = x.new_empty(x.shape), torch.empty_like(apart)

            def run_backward() -> None:
                torch.mul(gradient, weight, out=scaled)
                gradients = layer_norm_backward(
                    scaled.view(apart.shape), apart, shape, *statistics, None, None, [True, False, False]
                )
                before.copy_(gradients[0])

            return before.view(x.shape), [run_backward]

        return Placed(y, [forward], backward)

    return place


_BESIDE: dict[type[nn.Module], Callable[..., Layer]] = {nn.Linear: _products, nn.LayerNorm: _layer_norms}
