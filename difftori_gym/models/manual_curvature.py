"""
Derivatives of a hand-written gradient: what training through a planner asks for at every differentiated step.

A step of a planner is a function of a value v and of its gradient g in the actions. To differentiate it one needs, for
given cotangents c of v and u of g, the derivative of c v + u.g in the actions, the latent states and the weights. That
is a directional derivative of the gradient: a forward pass of tangents along u and a backward pass of them, with c as
the seed, beside the two passes that gave v and g (Pearlmutter 1994, "Fast exact multiplication by the Hessian"). A
weight's share is then one product of what its layer has seen. Autograd does the same arithmetic, through many more and
smaller operations.

Written out for the layers of :mod:`difftori_gym.models.manual_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difftori_gym.models.manual_layers import MANY_NUMBERS

MANY_ROWS = 32
"""From so many rows on, products are added up one by one; below, the rows are put together first."""


class LayerTape(Protocol):
    """One call of a layer: the four passes, in this order. Rows are samples, everything is ``[N, n]``."""

    def forward(self, x: Tensor) -> Tensor:
        """:return: output of the layer"""

    def backward(self, gradient: Tensor) -> Tensor:
        """:return: gradient of the input, from that of the output"""

    def tangent(self, tangent: Tensor) -> Tensor:
        """:return: tangent of the output, from that of the input"""

    def tangent_backward(self, gradient: Tensor) -> Tensor:
        """:return: tangent of the input's gradient, from that of the output's"""

    def seen(self) -> list[tuple[Tensor, ...]]:
        """:return: for each parameter, what :func:`_parameter_gradient` makes its gradient of"""


class _Linear:
    def __init__(self, module: nn.Linear) -> None:
        self._weight, self._bias = module.weight, module.bias

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        return F.linear(x, self._weight, self._bias)

    def backward(self, gradient: Tensor) -> Tensor:
        self._gradient = gradient
        return torch.mm(gradient, self._weight)

    def tangent(self, tangent: Tensor) -> Tensor:
        self._tangent = tangent
        return F.linear(tangent, self._weight)

    def tangent_backward(self, gradient: Tensor) -> Tensor:
        self._gradient_tangent = gradient
        return torch.mm(gradient, self._weight)

    def seen(self) -> list[tuple[Tensor, ...]]:
        weight = (self._gradient_tangent, self._x, self._gradient, self._tangent)
        return [weight] if self._bias is None else [weight, (self._gradient_tangent,)]


class _LayerNorm:
    def __init__(self, module: nn.LayerNorm) -> None:
        self._shape, self._eps = list(module.normalized_shape), module.eps
        self._weight, self._bias = module.weight, module.bias

    def forward(self, x: Tensor) -> Tensor:
        y, _, self._rstd = torch.native_layer_norm(x, self._shape, None, None, self._eps)
        self._y = y
        if self._weight is None:
            return y
        scaled = y * self._weight
        return scaled if self._bias is None else scaled + self._bias

    def _centered(self, v: Tensor) -> Tensor:
        """``v`` without its parts along the constant and along the output."""
        return v - v.mean(1, keepdim=True) - self._y * (self._y * v).mean(1, keepdim=True)

    def _scaled(self, gradient: Tensor) -> Tensor:
        return gradient if self._weight is None else gradient * self._weight

    def backward(self, gradient: Tensor) -> Tensor:
        self._gradient, self._scaled_gradient = gradient, self._scaled(gradient)
        self._centered_gradient = self._centered(self._scaled_gradient)
        return self._rstd * self._centered_gradient

    def tangent(self, tangent: Tensor) -> Tensor:
        self._rstd_tangent = -self._rstd.square() * (self._y * tangent).mean(1, keepdim=True)
        self._y_tangent = self._rstd * self._centered(tangent)
        return self._scaled(self._y_tangent)

    def tangent_backward(self, gradient: Tensor) -> Tensor:
        self._gradient_tangent = gradient
        before = self._scaled_gradient
        moved = self._y_tangent * (self._y * before).mean(1, keepdim=True)
        moved = moved + self._y * (self._y_tangent * before).mean(1, keepdim=True)
        second = self._centered(self._scaled(gradient)) - moved
        return self._rstd_tangent * self._centered_gradient + self._rstd * second

    def seen(self) -> list[tuple[Tensor, ...]]:
        if self._weight is None:
            return []
        scale = (self._gradient_tangent * self._y + self._gradient * self._y_tangent,)
        return [scale] if self._bias is None else [scale, (self._gradient_tangent,)]


class _Activation:
    """
    An activation, by its first two derivatives, both as functions of its output.

    :param function: of the input
    :param slope: (v, output) -> v times the first derivative
    :param bend: (v, v times the first derivative, output) -> v times the second derivative; None where it vanishes
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        slope: Callable[[Tensor, Tensor], Tensor],
        bend: Callable[[Tensor, Tensor, Tensor], Tensor] | None,
    ) -> None:
        self._function, self._slope, self._bend = function, slope, bend

    def forward(self, x: Tensor) -> Tensor:
        self._y = self._function(x)
        return self._y

    def backward(self, gradient: Tensor) -> Tensor:
        onward = self._slope(gradient, self._y)
        self._bent = None if self._bend is None else self._bend(gradient, onward, self._y)
        return onward

    def tangent(self, tangent: Tensor) -> Tensor:
        self._tangent = tangent
        return self._slope(tangent, self._y)

    def tangent_backward(self, gradient: Tensor) -> Tensor:
        onward = self._slope(gradient, self._y)
        return onward if self._bent is None else onward.addcmul_(self._bent, self._tangent)

    def seen(self) -> list[tuple[Tensor, ...]]:
        return []


# Fused kernels: comparisons and torch.where take several times longer.
_elu_backward = torch.ops.aten.elu_backward.default
_threshold_backward = torch.ops.aten.threshold_backward.default


def _relu_slope(v: Tensor, y: Tensor) -> Tensor:
    return _threshold_backward(v, y, 0.0)


def _elu(module: nn.ELU) -> _Activation:
    alpha = module.alpha

    def slope(v: Tensor, y: Tensor) -> Tensor:
        return _elu_backward(v, alpha, 1.0, 1.0, True, y)

    def function(x: Tensor) -> Tensor:
        if alpha != 1.0 or x.numel() < MANY_NUMBERS or x.is_cuda:
            return F.elu(x, alpha)
        return torch.maximum(x, x.clamp_max(0.0).exp_().sub_(1.0))  # in half the time

    # Left of zero an exponential, whose derivatives are all the same; right of it a line.
    return _Activation(function, slope, lambda v, onward, y: onward - _relu_slope(v, y))


def _relu(_: nn.ReLU) -> _Activation:
    return _Activation(torch.relu, _relu_slope, None)


def _tanh(_: nn.Tanh) -> _Activation:
    slope = torch.ops.aten.tanh_backward.default
    return _Activation(torch.tanh, slope, lambda v, onward, y: onward * y * -2.0)


_TAPES: dict[type[nn.Module], Callable[..., LayerTape]] = {
    nn.Linear: _Linear,
    nn.LayerNorm: _LayerNorm,
    nn.ELU: _elu,
    nn.ReLU: _relu,
    nn.Tanh: _tanh,
}


class NetworkTape:
    """
    One call of a network: the four passes of its layers.

    :param layers: what :func:`covered_layers` gives
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._tapes = [_TAPES[type(layer)](layer) for layer in layers]

    def forward(self, x: Tensor) -> Tensor:
        """
        :param x: ``[N, n]``
        :return: output ``[N, m]``
        """
        for tape in self._tapes:
            x = tape.forward(x)
        return x

    def backward(self, gradient: Tensor) -> Tensor:
        """
        :param gradient: of the output ``[N, m]``
        :return: of the input ``[N, n]``
        """
        for tape in reversed(self._tapes):
            gradient = tape.backward(gradient)
        return gradient

    def tangent(self, tangent: Tensor) -> Tensor:
        """
        :param tangent: of the input ``[N, n]``
        :return: of the output ``[N, m]``
        """
        for tape in self._tapes:
            tangent = tape.tangent(tangent)
        return tangent

    def tangent_backward(self, gradient: Tensor) -> Tensor:
        """
        :param gradient: tangent of the output's gradient ``[N, m]``
        :return: tangent of the input's gradient ``[N, n]``
        """
        for tape in reversed(self._tapes):
            gradient = tape.tangent_backward(gradient)
        return gradient

    def seen(self) -> Iterator[tuple[Tensor, ...]]:
        """:return: what each parameter's gradient is made of, in the order of ``network.parameters()``"""
        for tape in self._tapes:
            yield from tape.seen()


def parameter_gradients(calls: Sequence[NetworkTape], usable: Tensor | None = None) -> list[Tensor]:
    """
    Gradients of a network's parameters over several calls, one product per weight.

    :param calls: the calls, after all four passes, each of a multiple of B rows
    :param usable: mask ``[B]`` of samples that count; the others' numbers may be broken. None if all do.
    :return: gradients in the order of ``network.parameters()``
    """
    return [_parameter_gradient(parts, usable) for parts in zip(*(call.seen() for call in calls), strict=True)]


def _parameter_gradient(parts: Sequence[tuple[Tensor, ...]], usable: Tensor | None) -> Tensor:
    if usable is not None:
        parts = [tuple(_masked(rows, usable) for rows in part) for part in parts]
    if len(parts[0]) == 1:
        return torch.cat([part[0] for part in parts]).sum(0)
    if len(parts[0][0]) < MANY_ROWS:
        gradient_tangent, x, gradient, tangent = map(torch.cat, zip(*parts, strict=True))
        return torch.cat([gradient_tangent, gradient]).t() @ torch.cat([x, tangent])
    total: Tensor | None = None
    for gradient_tangent, x, gradient, tangent in parts:
        total = gradient_tangent.t() @ x if total is None else total.addmm_(gradient_tangent.t(), x)
        total.addmm_(gradient.t(), tangent)
    assert total is not None
    return total


def _masked(rows: Tensor, usable: Tensor) -> Tensor:
    return torch.where(usable.repeat(len(rows) // len(usable))[:, None], rows, 0.0)
