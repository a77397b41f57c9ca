"""
Layers as ONNX operations, forward and backward; what :mod:`difftori_gym.models.call_lists.layers` is for torch.

Values are ``[B, n]``. An entry of :data:`LAYERS` writes the layer's output at once, and what takes the gradient of the
output to that of the input when it is called. So what nobody asks for is not in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from difftori_gym.exports.onnx.graph import Graph, Input, Value
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.models.call_lists.networks import has_hooks, layers_of

Backward = Callable[[Input], Input]
"""Gradient of the output -> gradient of the input; a constant one stays a constant as long as possible."""
Placed = tuple[Value, Backward]
NetworkBackward = Callable[[Input, Input | None], Value]
"""The same of a whole network; the second input is added."""


def product(graph: Graph, x: Input, weight: Input, add: Input | None = None, *, transposed: bool = False) -> Value:
    """``x @ weight + add``, or with the transposed weight, which is one constant for both."""
    return graph("Gemm", x, weight, *([] if add is None else [add]), transB=int(transposed))


def numbers(parameter: Any) -> np.ndarray:
    """The numbers of a tensor, float32."""
    return parameter.detach().cpu().float().numpy()


def _linear(graph: Graph, module: nn.Linear, x: Value, read: Callable[[Any], np.ndarray] = numbers) -> Placed:
    weight = read(module.weight)
    bias = None if module.bias is None else read(module.bias)

    def backward(gradient: Input) -> Input:
        return gradient @ weight if isinstance(gradient, np.ndarray) else product(graph, gradient, weight)

    return product(graph, x, weight, bias, transposed=True), backward


def _centred(parameter: Any) -> np.ndarray:
    """
    Weights ``[m, n]`` or biases ``[m]`` minus their mean over m. A LayerNorm behind them gives the same, and need not
    take the mean itself, neither forward nor backward.
    """
    exact = numbers(parameter).astype(np.float64)
    return (exact - exact.mean(0)).astype(np.float32)


def _layer_norm(graph: Graph, module: nn.LayerNorm, x: Value, centred: bool = False) -> Placed:
    affine = [numbers(each) for each in (module.weight, module.bias) if each is not None]
    affine = affine or [np.ones(module.normalized_shape, np.float32)]
    y, mean, reciprocal = graph.several("LayerNormalization", 3, x, *affine, axis=-1, epsilon=module.eps)

    def backward(gradient: Input) -> Value:
        normed = graph("Mul", x if centred else graph("Sub", x, mean), reciprocal)
        scaled = graph("Mul", gradient, affine[0])
        along = graph.reduce("Mean", graph("Mul", scaled, normed), -1)
        rest = graph("Sub", scaled, graph("Mul", normed, along))
        if not centred:
            rest = graph("Sub", rest, graph.reduce("Mean", scaled, -1))
        return graph("Mul", rest, reciprocal)

    return y, backward


def _elementwise(
    write: Callable[[Graph, Any, Value], Value], slope: Callable[[Graph, Any, Value, Value], Value]
) -> Callable[[Graph, Any, Value], Placed]:
    """A layer of its output, and of the slope made of input and output."""

    def place(graph: Graph, module: Any, x: Value) -> Placed:
        y = write(graph, module, x)
        return y, lambda gradient: graph("Mul", gradient, slope(graph, module, x, y))

    return place


def _elu_slope(graph: Graph, module: nn.ELU, x: Value, y: Value) -> Value:
    if module.alpha == 1.0:
        return graph("HardSigmoid", y, alpha=1.0, beta=1.0)  # min(1 + y, 1), and 1 + y is never negative
    return graph("Where", graph("Greater", x, 0.0), 1.0, graph("Add", y, module.alpha))


def _complement(graph: Graph, y: Value) -> Value:
    return graph("Sub", 1.0, y)


def _silu_slope(graph: Graph, module: nn.SiLU, x: Value, y: Value) -> Value:
    share = graph("Sigmoid", x)
    return graph("Add", share, graph("Mul", y, _complement(graph, share)))


def _gelu(graph: Graph, module: nn.GELU, x: Value) -> Value:
    return graph("Gelu", x, approximate=module.approximate)


def _gelu_slope(graph: Graph, module: nn.GELU, x: Value, y: Value) -> Value:
    if module.approximate != "none":
        raise cannot("GELU(approximate='tanh') in a planner's networks", "train with GELU() or ELU()")
    below = graph("Mul", graph("Add", graph("Erf", graph("Mul", x, math.sqrt(0.5))), 1.0), 0.5)
    density = graph("Mul", graph("Exp", graph("Mul", graph("Mul", x, x), -0.5)), 1.0 / math.sqrt(2.0 * math.pi))
    return graph("Add", below, graph("Mul", x, density))


def _mish_slope(graph: Graph, module: nn.Mish, x: Value, y: Value) -> Value:
    squashed = graph("Tanh", graph("Softplus", x))
    rest = graph("Mul", graph("Mul", x, _complement(graph, graph("Mul", squashed, squashed))), graph("Sigmoid", x))
    return graph("Add", squashed, rest)


def _softplus(graph: Graph, module: nn.Softplus, x: Value) -> Value:
    if module.beta != 1:
        raise cannot(f"Softplus(beta={module.beta})", "train with Softplus() or ELU()")
    return graph("Softplus", x)


def _leaky_slope(graph: Graph, module: nn.LeakyReLU, x: Value, y: Value) -> Value:
    return graph("Where", graph("Greater", x, 0.0), 1.0, module.negative_slope)


SELU_ALPHA, SELU_GAMMA = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def _selu_slope(graph: Graph, module: nn.SELU, x: Value, y: Value) -> Value:
    return graph("Where", graph("Greater", x, 0.0), SELU_GAMMA, graph("Add", y, SELU_GAMMA * SELU_ALPHA))


LAYERS: dict[type[nn.Module], Callable[[Graph, Any, Value], Placed]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.ELU: _elementwise(lambda graph, module, x: graph("Elu", x, alpha=module.alpha), _elu_slope),
    nn.ReLU: _elementwise(lambda graph, module, x: graph("Relu", x), lambda graph, module, x, y: graph("Sign", y)),
    nn.Tanh: _elementwise(
        lambda graph, module, x: graph("Tanh", x),
        lambda graph, module, x, y: _complement(graph, graph("Mul", y, y)),
    ),
    nn.Sigmoid: _elementwise(
        lambda graph, module, x: graph("Sigmoid", x),
        lambda graph, module, x, y: graph("Mul", y, _complement(graph, y)),
    ),
    nn.SiLU: _elementwise(lambda graph, module, x: graph("Mul", x, graph("Sigmoid", x)), _silu_slope),
    nn.GELU: _elementwise(_gelu, _gelu_slope),
    nn.Mish: _elementwise(lambda graph, module, x: graph("Mish", x), _mish_slope),
    nn.Softplus: _elementwise(_softplus, lambda graph, module, x, y: graph("Sigmoid", x)),
    nn.LeakyReLU: _elementwise(
        lambda graph, module, x: graph("LeakyRelu", x, alpha=module.negative_slope), _leaky_slope
    ),
    nn.SELU: _elementwise(lambda graph, module, x: graph("Selu", x, alpha=SELU_ALPHA, gamma=SELU_GAMMA), _selu_slope),
    nn.Identity: lambda graph, module, x: (x, lambda gradient: gradient),
    nn.Dropout: lambda graph, module, x: (x, lambda gradient: gradient),  # acting, nothing is dropped
}
"""A further kind of layer is one entry."""


def chain(graph: Graph, layers: Sequence[nn.Module], x: Value, where: str) -> tuple[Value, NetworkBackward]:
    """Layers one after the other; ``where`` they are, for errors."""
    steps: list[Backward] = []
    for index, layer in enumerate(layers):
        check_layer(layer, LAYERS, where)
        if isinstance(layer, nn.Linear):
            x, backward = _linear(graph, layer, x, _reader(layers, index))
        elif isinstance(layer, nn.LayerNorm) and index > 0:
            x, backward = _layer_norm(graph, layer, x, centred=isinstance(layers[index - 1], nn.Linear))
        else:
            x, backward = LAYERS[type(layer)](graph, layer, x)
        steps.append(backward)

    def all_back(gradient: Input, add: Input | None) -> Value:
        begins = isinstance(layers[0], nn.Linear)
        for step in reversed(steps[1:] if begins else steps):
            gradient = step(gradient)
        if begins:
            return product(graph, gradient, _reader(layers, 0)(layers[0].weight), add)
        if add is not None:
            return graph("Add", gradient, add)
        return gradient if isinstance(gradient, str) else graph.constant(gradient)

    return x, all_back


def _reader(layers: Sequence[nn.Module], index: int) -> Callable[[Any], np.ndarray]:
    """How the weights of a linear layer are read."""
    normed = index + 1 < len(layers) and isinstance(layers[index + 1], nn.LayerNorm)
    return _centred if normed else numbers


def network(graph: Graph, module: nn.Module, x: Value, where: str) -> tuple[Value, NetworkBackward]:
    """A ``Sequential`` or a layer; see :func:`chain`."""
    return chain(graph, list(layers_of(module)), x, where)


def check_layer(layer: nn.Module, known: dict[type[nn.Module], Any], where: str) -> None:
    """A ``ValueError`` for a layer that is not ``known`` or does more than its class."""
    if type(layer) not in known:
        kinds = ", ".join(kind.__name__ for kind in known)
        raise cannot(f"the layer {type(layer).__name__} in {where}", f"build it of {kinds}")
    if has_hooks(layer):
        raise cannot(f"the hook of a {type(layer).__name__} in {where}", "remove it")
