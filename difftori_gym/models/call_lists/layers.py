"""
Layers as lists of calls on memory that stays, forward and backward.

Activations are ``[B, N * n]``: the rows of N networks of one shape side by side, usually of one. :data:`LAYERS` has an
entry for every kind of layer that is known.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Operation = Callable[[], object]
Backward = Callable[[Tensor, Tensor], list[Operation]]
"""Gradient of the output ``[B, m]``, where that of the input goes ``[B, n]`` -> what writes the latter."""
Placed = tuple[list[Operation], Backward]
"""A layer between input and output: what writes the output, and then, once after each time, the gradient."""

LARGE = 2**15
"""Weights from which a transposed copy costs more than the products of one plan gain by it."""

MANY_NUMBERS = 2**12
"""Activations from which arithmetic costs more than calls."""


class Copies:
    """
    Weights that are kept a second time, in an order in which they are read faster.

    ``due`` is to be called when weights have changed.
    """

    def __init__(self) -> None:
        self.due: list[Operation] = []
        self._kept: dict[object, Tensor] = {}

    def of(self, view: Tensor) -> Tensor:
        """The numbers of a view in one piece, the same for the same view."""
        key = (view.data_ptr(), view.shape, view.stride())
        if key not in self._kept:
            self._kept[key] = view.clone(memory_format=torch.contiguous_format)
            self.due.append(partial(self._kept[key].copy_, view))
        return self._kept[key]

    def joined(self, modules: list[Any], name: str) -> Tensor | None:
        """The modules' parameters of that name in one piece, None if they have none."""
        parts: list[Tensor] = [getattr(module, name) for module in modules]
        if len(parts) == 1 or parts[0] is None:
            return parts[0]
        whole = torch.cat(parts)
        self.due.append(partial(torch.cat, parts, out=whole))
        return whole


def linear(column: list[Any], x: Tensor, y: Tensor, copies: Copies, *, shared: int = 0, add: bool = False) -> Placed:
    """
    The layer of ``nn.Linear``, every one in the column with rows of its own, ``[B, N * n]`` -> ``[B, N * m]``.

    :param shared: of one such layer, so many inputs and the bias are replaced by what it makes of them: it reads ``[B,
        m + n - shared]``, that first
    :param add: whether the gradient is added to what is there
    """
    weights, skipped = [each.weight[:, shared:] for each in column], y.shape[1] if shared else 0

    def parts(into: Tensor, gradient: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        rows = into[:, skipped:].chunk(len(column), 1), gradient.chunk(len(column), 1)
        return list(zip(*rows, weights, strict=True))

    def backward(gradient: Tensor, into: Tensor) -> list[Operation]:
        each = parts(into, gradient)
        if add:
            return [partial(part.addmm_, share, weight) for part, share, weight in each]
        return [partial(torch.mm, share, weight, out=part) for part, share, weight in each]

    forward: list[Operation] = []
    for module, (inputs, outputs, weight) in zip(column, parts(x, y), strict=True):
        forward += _product(inputs, outputs, weight, x[:, :skipped] if shared else module.bias, copies)
    return forward, backward


def _product(x: Tensor, y: Tensor, weight: Tensor, given: Tensor | None, copies: Copies) -> list[Operation]:
    """What writes the product, and what is given besides, ``[m]`` or ``[B, m]``."""
    # For few rows, a product with a matrix that lies as it is read takes half the time.
    transposed = copies.of(weight.t()) if weight.numel() <= LARGE else weight.t()
    if given is None:
        return [partial(torch.mm, x, transposed, out=y)]
    if given.dim() == 1 and not y.is_cuda:
        if y.numel() >= MANY_NUMBERS:
            return [partial(torch.mm, x, transposed, out=y), partial(y.add_, given)]
        given = copies.of(given.expand(y.shape))  # to spread it anew takes a third of the time of the product
    return [partial(torch.addmm, given, x, transposed, out=y)]


def _layer_norm(column: list[Any], x: Tensor, y: Tensor, copies: Copies) -> Placed:
    shape, eps, wanted = list(column[0].normalized_shape), column[0].eps, [True, False, False]  # input, weight, bias
    weight, bias = (copies.joined(column, name) for name in ("weight", "bias"))
    apart, own = x.unflatten(1, (len(column), *shape)), torch.ops.aten.native_layer_norm_backward.default
    statistics: list[Tensor] = []  # mean, and reciprocal deviation

    def forward() -> None:
        normed, *statistics[:] = torch.native_layer_norm(apart, shape, None, None, eps)
        normed = normed.view(x.shape)
        if weight is not None and bias is not None:
            torch.addcmul(bias, normed, weight, out=y)
        else:
            y.copy_(normed if weight is None else normed * weight)

    def backward(gradient: Tensor, into: Tensor) -> list[Operation]:
        scaled = gradient if weight is None else torch.empty_like(y)

        def write() -> None:
            if weight is not None:
                torch.mul(gradient, weight, out=scaled)
            found = own(scaled.view(apart.shape), apart, shape, *statistics, None, None, wanted)
            into.copy_(found[0].view(into.shape))

        return [write]

    return [forward], backward


def _elu(column: list[Any], x: Tensor, y: Tensor, copies: Copies) -> Placed:
    alpha = column[0].alpha
    forward: list[Operation] = [partial(torch._C._nn.elu, x, alpha, out=y)]  # type: ignore[call-arg]
    if alpha != 1.0:
        own = torch.ops.aten.elu_backward.grad_input
        return forward, lambda g, into: [partial(own, g, alpha, 1.0, 1.0, True, y, grad_input=into)]
    if x.numel() < MANY_NUMBERS or x.is_cuda:
        # The slope is 1 + min(y, 0): two operations that are quicker to call than ELU's own.
        least = partial(torch.minimum, y, torch.zeros_like(y))
        return forward, lambda g, into: [partial(least, out=into), partial(torch.addcmul, g, g, into, out=into)]
    # The slope is e = exp(min(x, 0)) and the output max(x, e - 1): exp may take a sixth of the time of expm1.
    slopes, (zero, one) = torch.empty_like(y), x.new_tensor([0.0, 1.0]).unbind()
    forward = [
        partial(torch.minimum, x, zero, out=slopes),
        slopes.exp_,
        partial(torch.sub, slopes, one, out=y),
        partial(torch.maximum, x, y, out=y),
    ]
    return forward, lambda g, into: [partial(torch.mul, g, slopes, out=into)]


def _relu(column: list[Any], x: Tensor, y: Tensor, copies: Copies) -> Placed:
    own = torch.ops.aten.threshold_backward.grad_input
    return [partial(torch.clamp_min, x, 0.0, out=y)], lambda g, into: [partial(own, g, y, 0.0, grad_input=into)]


def _tanh(column: list[Any], x: Tensor, y: Tensor, copies: Copies) -> Placed:
    own = torch.ops.aten.tanh_backward.grad_input
    return [partial(torch.tanh, x, out=y)], lambda g, into: [partial(own, g, y, grad_input=into)]


Kind = Callable[[list[Any], Tensor, Tensor, Copies], Placed]

LAYERS: dict[type[nn.Module], Kind] = {
    nn.Linear: linear,
    nn.LayerNorm: _layer_norm,
    nn.ELU: _elu,
    nn.ReLU: _relu,
    nn.Tanh: _tanh,
}
"""
Modules of one kind and shape side by side, their input ``[B, N * n]`` and output ``[B, N * m]`` -> the layer between.

A further kind is one entry. Its output is as wide as its input, or N * ``out_features``.
"""
