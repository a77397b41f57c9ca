"""
Layers of small networks with the gradient of their input, as lists of calls on memory that stays.

What :mod:`difftori_gym.models.manual_gradient` puts networks together from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Operation = Callable[[], object]


def run(operations: list[Operation]) -> None:
    """:param operations: are called in turn"""
    for operation in operations:
        operation()


@dataclass(frozen=True)
class Placed:
    """
    A layer with its input at a place in memory.

    :param y: output ``[B, m]``
    :param forward: writes it
    :param backward: gradient of the output ``[B, m]`` -> gradient of the input ``[B, n]``, and what writes that
    """

    y: Tensor
    forward: list[Operation]
    backward: Callable[[Tensor], tuple[Tensor, list[Operation]]]


class Layer(Protocol):
    """Places a layer behind its input ``[B, n]``; a linear one may be told where to write."""

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Placed: ...


layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default

LARGE = 2**15
"""Weights from which a transposed copy costs more than the products of one plan gain by it."""

MANY_NUMBERS = 2**12
"""Activations from which arithmetic costs more than calls."""


def linear(weight: Tensor, bias: Tensor | None, copies: list[Operation]) -> Layer:
    """
    :param weight: ``[m, n]``
    :param bias: ``[m]``, or None
    :param copies: gets what has to be called again when the weights have changed
    :return: the layer of ``nn.Linear``
    """
    transposed = weight.t()
    if weight.numel() <= LARGE:  # for few rows, a product with a matrix that lies as it is read takes half the time
        transposed = transposed.contiguous()
        copies.append(partial(transposed.copy_, weight.t()))
    spread: dict[int, Tensor] = {}

    def product(x: Tensor, y: Tensor) -> list[Operation]:
        if bias is None:
            return [partial(torch.mm, x, transposed, out=y)]
        if y.numel() >= MANY_NUMBERS and not y.is_cuda:
            return [partial(torch.mm, x, transposed, out=y), partial(y.add_, bias)]
        rows = x.shape[0]
        if rows not in spread and bias.is_cuda:
            spread[rows] = bias
        elif rows not in spread:  # for every row once: doing it anew takes a third of the time of the product
            spread[rows] = bias.expand(rows, -1).clone(memory_format=torch.contiguous_format)
            copies.append(partial(spread[rows].copy_, bias.expand(rows, -1)))
        return [partial(torch.addmm, spread[rows], x, transposed, out=y)]

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        y = x.new_empty(x.shape[0], weight.shape[0]) if out is None else out

        def backward(gradient: Tensor) -> tuple[Tensor, list[Operation]]:
            before = x.new_empty(x.shape)
            return before, [partial(torch.mm, gradient, weight, out=before)]

        return Placed(y, product(x, y), backward)

    return place


def _layer_norm(module: nn.LayerNorm) -> Layer:
    shape, weight, bias, eps = list(module.normalized_shape), module.weight, module.bias, module.eps
    wanted = [True, False, False]  # of input, weight, bias

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        y = x.new_empty(x.shape)
        statistics: list[Tensor] = []  # mean, and reciprocal deviation

        def forward() -> None:
            normed, *statistics[:] = torch.native_layer_norm(x, shape, weight, bias, eps)
            y.copy_(normed)

        def backward(gradient: Tensor) -> tuple[Tensor, list[Operation]]:
            before = x.new_empty(x.shape)

            def run_backward() -> None:
                before.copy_(layer_norm_backward(gradient, x, shape, *statistics, weight, bias, wanted)[0])

            return before, [run_backward]

        return Placed(y, [forward], backward)

    return place


def _in_place(forward: Callable[[Tensor], Tensor], slope: Callable[[Tensor, Tensor, Tensor], list[Operation]]) -> Layer:
    """
    :param forward: overwrites its argument
    :param slope: gradient of the output, output, and where that of the input goes -> what writes it
    """

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        def backward(gradient: Tensor) -> tuple[Tensor, list[Operation]]:
            before = x.new_empty(x.shape)
            return before, slope(gradient, x, before)

        return Placed(x, [partial(forward, x)], backward)

    return place


def _elu(module: nn.ELU) -> Layer:
    alpha, zeros = module.alpha, dict[torch.Size, Tensor]()

    def slope(gradient: Tensor, y: Tensor, before: Tensor) -> list[Operation]:
        if alpha == 1.0:  # the slope is 1 + min(y, 0): two operations that are quicker to call than ELU's own
            if y.shape not in zeros:
                zeros[y.shape] = torch.zeros_like(y)
            return [
                partial(torch.minimum, y, zeros[y.shape], out=before),
                partial(torch.addcmul, gradient, gradient, before, out=before),
            ]
        own = torch.ops.aten.elu_backward.grad_input
        return [partial(own, gradient, alpha, 1.0, 1.0, True, y, grad_input=before)]

    def place_many(x: Tensor) -> Placed:
        """The slope is e = exp(min(x, 0)) and the output max(x, e - 1): exp takes a sixth of the time of expm1."""
        slopes, lowered = x.new_empty(2, *x.shape).unbind()
        zero, one = x.new_tensor([0.0, 1.0]).unbind()
        forward: list[Operation] = [
            partial(torch.minimum, x, zero, out=slopes),
            slopes.exp_,
            partial(torch.sub, slopes, one, out=lowered),
            partial(torch.maximum, x, lowered, out=x),
        ]
        return Placed(x, forward, lambda gradient: (slopes, [partial(torch.mul, gradient, slopes, out=slopes)]))

    place_few = _in_place(partial(F.elu_, alpha=alpha), slope)

    def place(x: Tensor, out: Tensor | None = None) -> Placed:
        return place_many(x) if alpha == 1.0 and x.numel() >= MANY_NUMBERS and not x.is_cuda else place_few(x)

    return place


def _relu(module: nn.ReLU) -> Layer:
    own = torch.ops.aten.threshold_backward.grad_input
    return _in_place(Tensor.relu_, lambda gradient, y, before: [partial(own, gradient, y, 0.0, grad_input=before)])


def tanh_backward(gradient: Tensor, y: Tensor, before: Tensor) -> Operation:
    """
    :param gradient: of a tanh's output
    :param y: that output
    :param before: where the gradient of the input goes
    :return: what writes it
    """
    return partial(torch.ops.aten.tanh_backward.grad_input, gradient, y, grad_input=before)


def _tanh(module: nn.Tanh) -> Layer:
    return _in_place(Tensor.tanh_, lambda gradient, y, before: [tanh_backward(gradient, y, before)])


LAYERS: dict[type[nn.Module], Callable[[Any, list[Operation]], Layer]] = {
    nn.Linear: lambda module, copies: linear(module.weight, module.bias, copies),
    nn.LayerNorm: lambda module, copies: _layer_norm(module),
    nn.ELU: lambda module, copies: _elu(module),
    nn.ReLU: lambda module, copies: _relu(module),
    nn.Tanh: lambda module, copies: _tanh(module),
}
_IN_PLACE = (nn.ELU, nn.ReLU, nn.Tanh)


def layers_of(network: nn.Module) -> Iterator[nn.Module]:
    if type(network) is nn.Sequential and not (network._forward_hooks or network._forward_pre_hooks):
        for child in network:
            yield from layers_of(child)
    else:
        yield network


def covers(modules: list[nn.Module]) -> bool:
    if any(type(module) not in LAYERS or module._forward_hooks or module._forward_pre_hooks for module in modules):
        return False
    # An activation overwrites its input, which the backward pass of an activation before it would still need.
    in_place = [isinstance(module, _IN_PLACE) for module in modules]
    return not any(before and after for before, after in pairwise(in_place))


def layers_with_backward(modules: list[nn.Module]) -> list[Layer] | None:
    """
    :param modules: linear layers, LayerNorm, ELU, ReLU and tanh, no two activations in a row; activations work in
        place. They must outlive the result unchanged.
    :return: each layer, to be placed; None if there is another kind of layer
    """
    flat = [layer for module in modules for layer in layers_of(module)]
    return [LAYERS[type(module)](module, []) for module in flat] if covers(flat) else None


def place_in_turn(layers: list[Layer], x: Tensor, out: Tensor | None = None) -> list[Placed]:
    """
    :param layers: the last one linear if ``out`` is given
    :param x: input of the first ``[B, n]``
    :param out: what the last one writes to ``[B, m]``
    :return: each layer behind the one before
    """
    placed = []
    for index, layer in enumerate(layers):
        placed.append(layer(x, out if index + 1 == len(layers) else None))
        x = placed[-1].y
    return placed


def backward_in_turn(placed: list[Placed], gradient: Tensor) -> tuple[Tensor, list[Operation]]:
    """
    :param placed: layers one behind the other
    :param gradient: of the last one's output ``[B, m]``
    :return: gradient of the first one's input ``[B, n]``, and what writes it
    """
    operations: list[Operation] = []
    for each in reversed(placed):
        gradient, more = each.backward(gradient)
        operations += more
    return gradient, operations
