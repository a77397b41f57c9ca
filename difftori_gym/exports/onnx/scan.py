"""
What a planner maximises, imagined step by step, with its gradient in the actions, as ONNX operations.

The equation and the parts are those of :mod:`difftori_gym.models.call_lists.scan`. Every evaluation adds its nodes
anew, and all read the same weights.

Actions and their gradients are ``[H, B, A]``, values ``[1, B, 1]``: B problems side by side, starts or latents of one
observation. Rows of networks are ordered by time first, ``[H * B, n]``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import nn

from difftori_gym.exports.onnx.graph import Graph, Input, Value
from difftori_gym.exports.onnx.layers import NetworkBackward, chain, network, numbers, product
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.models.call_lists import Modules
from difftori_gym.models.call_lists.networks import layers_of


class Objective(Protocol):
    """What the solvers see."""

    shape: tuple[int, int, int]

    def value_and_gradient(self, actions: Value) -> tuple[Value, Value]:
        """Actions ``[H, B, A]`` -> values ``[1, B, 1]`` and gradients ``[H, B, A]``."""

    def value(self, actions: Value) -> Value:
        """Actions ``[H, B, A]`` -> values ``[1, B, 1]``."""


@dataclass(frozen=True)
class First:
    """The first, linear layer of a network that reads state and action, apart from the layers behind it."""

    of_state: np.ndarray
    of_action: np.ndarray
    bias: np.ndarray | None
    rest: Sequence[nn.Module]
    where: str

    @classmethod
    def of(cls, module: nn.Module, state_dim: int, where: str) -> First:
        first, *rest = layers_of(module)
        if type(first) is not nn.Linear:
            raise cannot(f"a {type(first).__name__} as first layer of {where}", "begin it with a Linear")
        weight = numbers(first.weight)
        states, actions = (np.ascontiguousarray(part) for part in np.split(weight, [state_dim], axis=1))
        return cls(states, actions, None if first.bias is None else numbers(first.bias), rest, where)

    def begin(self, graph: Graph, actions: Input) -> Value:
        """The share of actions ``[N, A]``, and the bias."""
        return product(graph, actions, self.of_action, self.bias, transposed=True)

    def go_on(self, graph: Graph, state: Input, begun: Value) -> tuple[Value, NetworkBackward]:
        """The network's output for states ``[N, Z]``; what leads its gradient back to that of the first layer."""
        hidden = product(graph, state, self.of_state, begun, transposed=True)
        return chain(graph, self.rest, hidden, self.where) if self.rest else (hidden, unchanged(graph))


def unchanged(graph: Graph) -> NetworkBackward:
    return lambda gradient, add: gradient if isinstance(gradient, str) else graph.constant(gradient)


@dataclass
class _Trace:
    """What a forward pass leaves to the backward pass."""

    dynamics: list[NetworkBackward]
    head: NetworkBackward
    terms: list[Value]
    weights: Value | None = None
    termination: NetworkBackward | None = None
    logits: Value | None = None
    end: Callable[[Value | None], Value] | None = None


class ScanObjective:
    """
    The imagined return, or a sum of scores.

    :param graph: what is written to
    :param modules: networks, of which ``dynamics`` is there
    :param z0: first states ``[B, Z]``
    :param shape: H, B, A
    :param state_dim: Z
    :param discount: per-step discount
    """

    def __init__(
        self, graph: Graph, modules: Modules, z0: Value, shape: tuple[int, int, int], state_dim: int, discount: float
    ) -> None:
        assert modules.dynamics is not None
        self.shape, self._graph, self._z0, self._state_dim = shape, graph, z0, state_dim
        self._modules = modules
        self._dynamics = First.of(modules.dynamics[0], state_dim, "the dynamics")
        self._head = First.of(modules.head[0], state_dim, "the reward")
        self._horizon, self._batch, self._action_dim = shape
        self._steps = self._horizon if modules.critics is not None else self._horizon - 1
        self._discounts = np.array([discount**t for t in range(self._horizon + 1)], np.float32)

    def value(self, actions: Value) -> Value:
        return self._forward(actions)[0]

    def value_and_gradient(self, actions: Value) -> tuple[Value, Value]:
        value, trace = self._forward(actions)
        return value, self._backward(trace)

    def _forward(self, actions: Value) -> tuple[Value, _Trace]:
        graph, (horizon, batch, action_dim) = self._graph, self.shape
        flat = graph.reshape(actions, horizon * batch, action_dim)
        begun = graph.split(self._dynamics.begin(graph, flat), [batch] * horizon)
        states, dynamics = [self._z0], []
        for t in range(self._steps):
            state, back = self._dynamics.go_on(graph, states[-1], begun[t])
            states.append(state)
            dynamics.append(back)
        rows = graph.concat(states[:horizon], 0)
        terms, head = self._head.go_on(graph, rows, self._head.begin(graph, flat))  # [H * B, 1]
        trace = _Trace(dynamics, head, [graph.reshape(terms, horizon, batch) if batch > 1 else terms])
        if self._modules.critics is not None:
            end, trace.end = self._end(states[horizon])
            trace.terms.append(end)
        counted = graph.concat(trace.terms, 0)  # [H, B] or [H + 1, B]
        count = horizon + (self._modules.critics is not None)
        if self._modules.termination is None or not self._steps:
            value = graph("MatMul", self._discounts[None, :count], counted)
        else:
            self._survival(states[1:], count, trace)
            value = graph.reduce("Sum", graph("Mul", trace.weights, counted), 0)
        return graph.reshape(value, 1, batch, 1), trace

    def _survival(self, entered: list[Value], count: int, trace: _Trace) -> None:
        """What each term counts ``[count, B]``: discount times the probabilities of having survived so far."""
        graph, steps, batch = self._graph, len(entered), self._batch
        assert self._modules.termination is not None
        module = self._modules.termination[0]
        logits, trace.termination = network(graph, module, graph.concat(entered, 0), "the termination")
        trace.logits = graph.reshape(logits, steps, batch) if batch > 1 else logits
        # log s = -softplus(logit), and row t adds up those before it
        before = -np.tri(count, steps, -1, dtype=np.float32)
        survived = graph("Exp", product(graph, before, graph("Softplus", trace.logits)))
        trace.weights = graph("Mul", survived, self._discounts[:count, None])

    def _end(self, state: Value) -> tuple[Value, Callable[[Value | None], Value]]:
        """The least value ``[1, B]`` of the last state and the prior's action, and what leads its weight back."""
        graph, batch, modules = self._graph, self._batch, self._modules
        assert modules.prior is not None
        assert modules.critics is not None
        raw, prior_back = network(graph, modules.prior[0], state, "the prior")
        action = graph("Tanh", raw)
        both = graph.concat([state, action], 1)
        each = [network(graph, critic, both, "the values") for critic in modules.critics]
        values = graph.concat([value for value, _ in each], 1)  # [B, N]
        least = graph.reduce("Min", values, 1)
        chosen = graph("ArgMin", values, axis=1, keepdims=0)

        def back(weight: Value | None) -> Value:
            """Gradient of the state ``[B, Z]``, given the weight ``[B, 1]`` of the end; None for the discount."""
            count = len(each)
            shares = np.eye(count, dtype=np.float32) * (self._discounts[-1] if weight is None else np.float32(1))
            picked = graph("Gather", shares, chosen, axis=0)
            picked = picked if weight is None else graph("Mul", picked, weight)
            gradient: Value | None = None
            for (_, critic_back), share in zip(each, graph.split(picked, [1] * count, axis=1), strict=True):
                gradient = critic_back(share, gradient)
            assert gradient is not None
            to_state, to_action = graph.split(gradient, [self._state_dim, self._action_dim], axis=1)
            slope = graph("Sub", 1.0, graph("Mul", action, action))
            return prior_back(graph("Mul", to_action, slope), to_state)

        return graph.reshape(least, 1, batch) if batch > 1 else least, back

    def _backward(self, trace: _Trace) -> Value:
        graph, (horizon, batch, action_dim) = self._graph, self.shape
        weights, end_weight = self._weights(trace)
        to_head = trace.head(weights, None)
        outside = self._from_outside(trace, to_head, end_weight)
        through: list[Value] = []  # gradients of what the dynamics' first layer writes, last step first
        to_state: Value | None = None
        for t in reversed(range(self._steps)):
            if to_state is None:
                to_state = outside[t]
            else:
                to_state = product(graph, through[-1], self._dynamics.of_state, outside[t])
            through.append(trace.dynamics[t](to_state, None))
        of_head = product(graph, to_head, self._head.of_action)
        if not through:
            return graph.reshape(of_head, *self.shape)
        if self._steps < horizon:
            through.insert(0, graph.constant(np.zeros((batch, len(self._dynamics.of_action)), np.float32)))
        gradient = product(graph, graph.concat(through[::-1], 0), self._dynamics.of_action, of_head)
        return graph.reshape(gradient, horizon, batch, action_dim)

    def _weights(self, trace: _Trace) -> tuple[Input, Value | None]:
        """What the head's rows count ``[H * B, 1]``, and the end ``[B, 1]``, None for its discount."""
        graph, (horizon, batch, _) = self._graph, self.shape
        if trace.weights is None:
            return np.repeat(self._discounts[:horizon], batch)[:, None], None
        if trace.end is None:
            return graph.reshape(trace.weights, horizon * batch, 1), None
        rows, end = graph.split(trace.weights, [horizon, 1])
        return graph.reshape(rows, horizon * batch, 1), graph.reshape(end, batch, 1)

    def _from_outside(self, trace: _Trace, to_head: Value, end_weight: Value | None) -> list[Value]:
        """Gradients of the states 1, 2, ... by all but the next step, ``[B, Z]`` each."""
        graph, (horizon, batch, _) = self._graph, self.shape
        later: list[Value] = []
        if horizon > 1:
            rows = graph.slice(to_head, batch, horizon * batch)
            later = [product(graph, rows, self._head.of_state)]  # of the states 1 to H - 1
        if trace.end is not None:
            later.append(trace.end(end_weight))
        if trace.termination is None:
            count = horizon - 1
            apart = graph.split(later[0], [batch] * count) if count else []
            return [*apart, *later[1 if count else 0 :]]
        return graph.split(self._of_survival(trace, graph.concat(later, 0)), [batch] * self._steps)

    def _of_survival(self, trace: _Trace, add: Value) -> Value:
        """With s = sigmoid(-l), d log s = -(1 - s) dl: a logit takes this share of all that comes later."""
        graph, steps = self._graph, self._steps
        assert trace.termination is not None
        counted = graph("Mul", trace.weights, graph.concat(trace.terms, 0))
        count = self._horizon + (trace.end is not None)
        later = product(graph, -np.tri(count, steps, -1, dtype=np.float32).T, counted)
        to_logits = graph("Mul", later, graph("Sigmoid", trace.logits))
        return trace.termination(graph.reshape(to_logits, steps * self._batch, 1), add)
