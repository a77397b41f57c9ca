"""
Gradients of small networks with respect to their input, written out by hand.

A planner asks for the gradient of its objective in the actions, over and over, for one observation at a time. There
autograd spends most of its time on recording and on gradients nobody asked for; a hand-written backward pass over the
same kernels is several times faster. What is left is the number of operations: they work in place where they can, and
on buffers of the caller. Only what :mod:`difftori_gym.models.mlp` builds is covered, and only without autograd, inside
``torch.inference_mode()`` or ``torch.no_grad()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Backward(Protocol):
    """Takes the gradient of an output ``[B, m]`` back to the input and adds it to ``onto`` ``[B, n]``."""

    def __call__(self, gradient: Tensor, onto: Tensor) -> None: ...


class Network(Protocol):
    """Input ``x`` ``[B, n]`` -> output, written to ``out`` ``[B, m]``, and its backward pass."""

    def __call__(self, x: Tensor, out: Tensor) -> Backward: ...


LayerBackward = Callable[[Tensor], Tensor]
Layer = Callable[[Tensor], tuple[Tensor, LayerBackward]]

# With the overload named, it need not be found at every call.
_elu_backward = torch.ops.aten.elu_backward.default
_threshold_backward = torch.ops.aten.threshold_backward.default
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
tanh_backward = torch.ops.aten.tanh_backward.default
"""Gradient of a tanh's output, and that output -> gradient of the input."""


LARGE = 2**15
"""Weights from which a transposed copy costs more than the products of one plan gain by it."""


def _transposed(weight: Tensor) -> Tensor:
    # For few rows, a product with a matrix that lies in memory as it is read takes half the time.
    return weight.t() if weight.numel() > LARGE else weight.t().contiguous()


def _linear(module: nn.Linear) -> Layer:
    weight, bias, transposed = module.weight, module.bias, _transposed(module.weight)

    def layer(x: Tensor) -> tuple[Tensor, LayerBackward]:
        y = torch.mm(x, transposed)  # with the bias added apart: one operation less than it is spread by addmm
        return y if bias is None else y.add_(bias), lambda gradient: torch.mm(gradient, weight)

    return layer


def _layer_norm(module: nn.LayerNorm) -> Layer:
    shape, weight, bias, eps = list(module.normalized_shape), module.weight, module.bias, module.eps
    wanted = [True, False, False]  # of input, weight, bias

    def layer(x: Tensor) -> tuple[Tensor, LayerBackward]:
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        return y, lambda gradient: _layer_norm_backward(gradient, x, shape, mean, rstd, weight, bias, wanted)[0]

    return layer


def _elu(module: nn.ELU) -> Layer:
    alpha = module.alpha

    def layer(x: Tensor) -> tuple[Tensor, LayerBackward]:
        y = F.elu_(x, alpha)
        return y, lambda gradient: _elu_backward(gradient, alpha, 1.0, 1.0, True, y)

    return layer


def _relu(x: Tensor) -> tuple[Tensor, LayerBackward]:
    y = x.relu_()
    return y, lambda gradient: _threshold_backward(gradient, y, 0.0)


def _tanh(x: Tensor) -> tuple[Tensor, LayerBackward]:
    y = x.tanh_()
    return y, lambda gradient: tanh_backward(gradient, y)


_LAYERS: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.ELU: _elu,
    nn.ReLU: lambda module: _relu,
    nn.Tanh: lambda module: _tanh,
}
_IN_PLACE = (nn.ELU, nn.ReLU, nn.Tanh)


def _layers_of(network: nn.Module) -> Iterator[nn.Module]:
    if type(network) is nn.Sequential and not (network._forward_hooks or network._forward_pre_hooks):
        for child in network:
            yield from _layers_of(child)
    else:
        yield network


def _covers(modules: list[nn.Module]) -> bool:
    if any(type(module) not in _LAYERS or module._forward_hooks or module._forward_pre_hooks for module in modules):
        return False
    # An activation overwrites its input, which the backward pass of an activation before it would still need.
    in_place = [isinstance(module, _IN_PLACE) for module in modules]
    return not any(before and after for before, after in pairwise(in_place))


def layers_with_backward(modules: list[nn.Module]) -> list[Layer] | None:
    """
    :param modules: linear layers, LayerNorm, ELU, ReLU and tanh, no two activations in a row; activations work in
        place. They must outlive the result unchanged.
    :return: each layer, input -> output and its backward pass; None if there is another kind of layer
    """
    flat = [layer for module in modules for layer in _layers_of(module)]
    return [_LAYERS[type(module)](module) for module in flat] if _covers(flat) else None


def covered_layers(network: nn.Module) -> list[nn.Module] | None:
    """
    :param network: any module
    :return: its layers in order, if it is a nested ``Sequential`` of linear layers, LayerNorm, ELU, ReLU and tanh, the
        first and the last layer linear, the last with a bias, no two activations in a row; else None
    """
    modules = list(_layers_of(network))
    if not modules or not _covers(modules):
        return None
    first, last = modules[0], modules[-1]
    is_framed = isinstance(first, nn.Linear) and isinstance(last, nn.Linear) and last.bias is not None
    return modules if is_framed else None


def with_backward(network: nn.Module) -> Network | None:
    """
    :param network: must outlive the result unchanged
    :return: the network with its backward pass; None if :func:`covered_layers` does not cover it
    """
    modules = covered_layers(network)
    if modules is None:
        return None
    first, last = modules[0], modules[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    body = [_LAYERS[type(module)](module) for module in modules[:-1]]
    first_weight, last_weight, bias = first.weight, last.weight, last.bias
    transposed = _transposed(last_weight)

    def run(x: Tensor, out: Tensor) -> Backward:
        backwards: list[LayerBackward] = []
        for layer in body:
            x, backward = layer(x)
            backwards.append(backward)
        torch.mm(x, transposed, out=out).add_(bias)
        backwards.append(lambda gradient: torch.mm(gradient, last_weight))

        def run_backward(gradient: Tensor, onto: Tensor) -> None:
            for backward in backwards[:0:-1]:  # the first layer's is one with the sum
                gradient = backward(gradient)
            onto.addmm_(gradient, first_weight)

        return run_backward

    return run
