"""
Gradients of small networks with respect to their input, written out by hand.

A planner asks for the gradient of its objective in the actions, over and over, for one observation at a time. There
autograd spends most of its time on recording and on gradients nobody asked for, and what is left is the time to call
the operations. So forward and backward pass become lists of calls, made once, on memory that stays; to evaluate is to
go through the lists. Only what :mod:`difftori_gym.models.mlp` builds is covered, and only without autograd, inside
``torch.inference_mode()``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from difftori_gym.models.manual_layers import (
    LAYERS,
    Layer,
    Operation,
    backward_in_turn,
    covers,
    layers_of,
    place_in_turn,
)


@dataclass(frozen=True)
class Pass:
    """
    :param forward: reads the input and writes the output
    :param backward: reads the gradient of the output and adds that of the input; once after each forward
    """

    forward: list[Operation]
    backward: list[Operation]


class Place(Protocol):
    """
    Places a network between memory that stays: input ``[B, n]``, output ``[B, m]``, gradient of the output ``[B, m]``,
    and what the gradient of the input is added to ``[B, n]``.
    """

    def __call__(self, x: Tensor, out: Tensor, gradient: Tensor, onto: Tensor) -> Pass: ...


@dataclass(frozen=True)
class Network:
    """
    :param place: called once for every place
    :param copies: to be called when the weights have changed, because some are kept a second time
    """

    place: Place
    copies: list[Operation]


def covered_layers(network: nn.Module) -> list[nn.Module] | None:
    """
    :param network: any module
    :return: its layers in order, if it is a nested ``Sequential`` of linear layers, LayerNorm, ELU, ReLU and tanh, the
        first and the last layer linear, the last with a bias, no two activations in a row; else None
    """
    modules = list(layers_of(network))
    if not modules or not covers(modules):
        return None
    first, last = modules[0], modules[-1]
    is_framed = isinstance(first, nn.Linear) and isinstance(last, nn.Linear) and last.bias is not None
    return modules if is_framed else None


def with_backward(network: nn.Module) -> Network | None:
    """
    :param network: must outlive the result; when its weights have changed in place, the result's copies are due
    :return: the network, to be placed; None if :func:`covered_layers` does not cover it
    """
    modules = covered_layers(network)
    if modules is None:
        return None
    first = modules[0]
    assert isinstance(first, nn.Linear)
    copies: list[Operation] = []
    return between([LAYERS[type(module)](module, copies) for module in modules], first.weight, copies)


def between(layers: list[Layer], first_weight: Tensor, copies: list[Operation]) -> Network:
    """
    :param layers: linear ones first and last
    :param first_weight: weight of the first one ``[m, n]``
    :param copies: of the layers' weights
    :return: the network they make up, to be placed
    """

    def place(x: Tensor, out: Tensor, gradient: Tensor, onto: Tensor) -> Pass:
        placed = place_in_turn(layers, x, out)
        reached, backward = backward_in_turn(placed[1:], gradient)  # the first layer's is one with the sum
        backward.append(partial(onto.addmm_, reached, first_weight))
        return Pass([operation for each in placed for operation in each.forward], backward)

    return Network(place, copies)
