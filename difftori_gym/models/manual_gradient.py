"""
Gradients of small networks with respect to their input, written out by hand.

A planner asks for the gradient of its objective in the actions, over and over, for one observation at a time. There
autograd spends most of its time on recording and on gradients nobody asked for; a hand-written backward pass over the
same kernels is several times faster. Only what :mod:`difftori_gym.models.mlp` builds is covered.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Backward = Callable[[Tensor], Tensor]
Layer = Callable[[Tensor], tuple[Tensor, Backward]]

_aten = torch.ops.aten


def _linear(module: nn.Linear) -> Layer:
    weight, bias = module.weight.detach(), module.bias.detach()
    return lambda x: (F.linear(x, weight, bias), lambda gradient: gradient @ weight)


def _elu(module: nn.ELU) -> Layer:
    alpha = module.alpha

    def layer(x: Tensor) -> tuple[Tensor, Backward]:
        y = F.elu(x, alpha)
        return y, lambda gradient: _aten.elu_backward(gradient, alpha, 1.0, 1.0, True, y)

    return layer


def _relu(module: nn.ReLU) -> Layer:
    def layer(x: Tensor) -> tuple[Tensor, Backward]:
        y = F.relu(x)
        return y, lambda gradient: _aten.threshold_backward(gradient, y, 0.0)

    return layer


def tanh(x: Tensor) -> tuple[Tensor, Backward]:
    """Hyperbolic tangent and its backward pass."""
    y = torch.tanh(x)
    return y, lambda gradient: _aten.tanh_backward(gradient, y)


def _layer_norm(module: nn.LayerNorm) -> Layer:
    shape = list(module.normalized_shape)
    weight, bias, eps = module.weight.detach(), module.bias.detach(), module.eps
    wanted = [True, False, False]  # of input, weight, bias

    def layer(x: Tensor) -> tuple[Tensor, Backward]:
        y, mean, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        return y, lambda gradient: _aten.native_layer_norm_backward(
            gradient, x, shape, mean, rstd, weight, bias, wanted
        )[0]

    return layer


_LAYERS: dict[type[nn.Module], Callable[..., Layer]] = {
    nn.Linear: _linear,
    nn.ELU: _elu,
    nn.ReLU: _relu,
    nn.Tanh: lambda module: tanh,
    nn.LayerNorm: _layer_norm,
}


def with_backward(network: nn.Module) -> Layer | None:
    """
    :param network: nested ``Sequential`` of linear layers, ELU, ReLU, tanh and LayerNorm; it must outlive the result
        unchanged
    :return: input ``[B, n]`` -> output ``[B, m]`` and the function that takes the output's gradient to the input's;
        None if the network holds anything else
    """
    layers = []
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            continue
        build = _LAYERS.get(type(module))
        if build is None or module._forward_hooks or module._forward_pre_hooks:
            return None
        layers.append(build(module))

    def run(x: Tensor) -> tuple[Tensor, Backward]:
        backwards = []
        for layer in layers:
            x, backward = layer(x)
            backwards.append(backward)
        backwards.reverse()

        def run_backward(gradient: Tensor) -> Tensor:
            for backward in backwards:
                gradient = backward(gradient)
            return gradient

        return x, run_backward

    return run
