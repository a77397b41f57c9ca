"""One score of a whole action sequence, with its gradient in the actions, as ONNX operations."""

from __future__ import annotations

import numpy as np
from torch import nn

from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import NetworkBackward, chain, product
from difftori_gym.exports.onnx.scan import First, unchanged


class ChunkObjective:
    """
    One score of a whole action sequence, see :class:`difftori_gym.models.score_objective.ChunkObjective`.

    :param condition: ``[B, C]``
    :param condition_dim: C
    """

    def __init__(
        self, graph: Graph, score: nn.Module, condition: Value, shape: tuple[int, int, int], condition_dim: int
    ) -> None:
        self.shape, self._graph = shape, graph
        self._first = First.of(score, condition_dim, "the score")
        self._given = product(graph, condition, self._first.of_state, self._first.bias, transposed=True)

    def value(self, actions: Value) -> Value:
        return self._forward(actions)[0]

    def value_and_gradient(self, actions: Value) -> tuple[Value, Value]:
        graph, (horizon, batch, action_dim) = self._graph, self.shape
        value, back = self._forward(actions)
        to_first = back(np.ones((batch, 1), np.float32), None)
        gradient = product(graph, to_first, self._first.of_action)  # [B, H * A]
        if batch == 1:
            return value, graph.reshape(gradient, *self.shape)
        apart = graph.reshape(gradient, batch, horizon, action_dim)
        return value, graph("Transpose", apart, perm=[1, 0, 2])

    def _forward(self, actions: Value) -> tuple[Value, NetworkBackward]:
        graph, (horizon, batch, action_dim) = self._graph, self.shape
        ordered = actions if batch == 1 else graph("Transpose", actions, perm=[1, 0, 2])
        flat = graph.reshape(ordered, batch, horizon * action_dim)
        hidden = product(graph, flat, self._first.of_action, self._given, transposed=True)
        if not self._first.rest:
            return graph.reshape(hidden, 1, batch, 1), unchanged(graph)
        value, back = chain(graph, self._first.rest, hidden, "the score")
        return graph.reshape(value, 1, batch, 1), back
