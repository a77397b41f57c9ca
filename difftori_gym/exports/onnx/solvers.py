"""
The first-order solvers as ONNX operations, their iterations one after the other.

What :mod:`difftori_gym.trajopt` does for a batch of problems, for those of one observation: several starts, and several
latents of imitation. The guards against numbers that broke are left out; such an iterate has a value that is not
finite, and is never the best. Actions are ``[H, B, A]``, values ``[1, B, 1]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.exports.onnx.scan import Objective
from difftori_gym.trajopt import TrajectoryOptimizer
from difftori_gym.trajopt.adam import BETA_1, BETA_2, FLOOR, TENTH_AFTER, TINY
from difftori_gym.trajopt.iterates import BROKEN
from difftori_gym.trajopt.multi_start import draw_starts
from difftori_gym.trajopt.optimizer import sized

INF = float("inf")
ObjectiveOf = Callable[[int], Objective]
"""Number of starts -> objective of so many copies of the problems, one copy after the other."""


def solve(
    graph: Graph,
    objective_of: ObjectiveOf,
    start: Value,
    shape: tuple[int, int, int],
    optimizer: TrajectoryOptimizer,
    generator: torch.Generator,
) -> Value:
    """
    :param start: ``[H, B, A]``
    :param shape: H, B, A
    :param generator: of random starts, which become constants
    :return: the best actions over all problems and starts ``[H, A]``, in [-1, 1]
    :raises ValueError: for a solver that cannot be written
    """
    if optimizer.max_iterations is None:
        optimizer = sized(optimizer, shape[0] * shape[2])
    if optimizer.solver not in RULES:
        name = optimizer.solver if isinstance(optimizer.solver, str) else "of your own"
        remedy = f"plan with one of {', '.join(RULES)}, planner_kwargs=dict(solver=...), or act with torch"
        raise cannot(f"the solver {name!r}", remedy)
    starts = _starts(graph, start, shape, optimizer, generator)
    objective = objective_of(optimizer.num_starts)
    return _Ascent(graph, objective, optimizer).best(starts)


def _starts(
    graph: Graph, start: Value, shape: tuple[int, int, int], optimizer: TrajectoryOptimizer, generator: torch.Generator
) -> Value:
    """Usable starts ``[H, S * B, A]``: the given one, zero, near the given one, anywhere."""
    horizon, _, action_dim = shape
    missing = optimizer.num_starts - 1
    starts = [start]
    if missing > 0:
        starts.append(graph.constant(np.zeros(shape, np.float32)))
    if missing > 1:
        one = torch.Size((1, horizon, action_dim))
        drawn = draw_starts(missing // 2, (missing - 1) // 2, one, torch.float32, torch.device("cpu"), generator)
        near, anywhere = (each.numpy().transpose(0, 2, 1, 3) for each in drawn)  # [n, H, 1, A]
        starts += [graph("Clip", graph("Add", start, noise), -1.0, 1.0) for noise in near]
        starts += [graph.constant(np.broadcast_to(each, shape)) for each in anywhere]
    joined = graph.concat(starts, 1)
    limit = INF if optimizer.bounds is None else BROKEN
    usable = graph("Where", graph("Less", graph("Abs", joined), limit), joined, 0.0)
    return usable if optimizer.bounds is None else graph("Clip", usable, -1.0, 1.0)


class _Ascent:
    def __init__(self, graph: Graph, objective: Objective, optimizer: TrajectoryOptimizer) -> None:
        self._graph, self._objective, self._settings = graph, objective, optimizer
        self._rule = RULES[str(optimizer.solver)](graph, optimizer)

    def best(self, starts: Value) -> Value:
        """The best iterate of all problems ``[H, A]``."""
        graph, bounds = self._graph, self._settings.bounds
        point, iterates, values = starts, [starts], list[Value]()
        for index in range(self._settings.max_iterations):
            value, gradient = self._linearize(point)
            values.append(value)
            point = self._rule.step(index, point, value, gradient)
            if bounds == "project":
                point = graph("Clip", point, -1.0, 1.0)
            iterates.append(point)
        values.append(self._objective.value(self._shown(point)))
        return self._chosen(iterates, values)

    def _shown(self, point: Value) -> Value:
        return self._graph("Clip", point, -1.0, 1.0) if self._settings.bounds == "clamp" else point

    def _linearize(self, point: Value) -> tuple[Value, Value]:
        graph = self._graph
        value, gradient = self._objective.value_and_gradient(self._shown(point))
        if self._settings.bounds == "clamp":
            outside = graph("Greater", graph("Abs", point), 1.0)
            gradient = graph("Where", outside, 0.0, gradient)
        return value, gradient

    def _chosen(self, iterates: list[Value], values: list[Value]) -> Value:
        graph, (horizon, batch, action_dim) = self._graph, self._objective.shape
        history = self._finite(graph.concat(values, 0))  # [K + 1, B, 1]
        index = graph("ArgMax", history, axis=0, keepdims=0)  # [B, 1], the first of equals
        rows = graph("Add", graph("Mul", index, np.int64(batch)), np.arange(batch)[:, None])
        each = graph.reshape(graph.concat(iterates, 0), len(iterates), horizon, batch, action_dim)
        by_problem = graph.reshape(graph("Transpose", each, perm=[0, 2, 1, 3]), -1, horizon, action_dim)
        best = graph("Gather", by_problem, graph.reshape(rows, batch), axis=0)  # [B, H, A]
        found = graph.reduce("Max", history, 0)  # [1, B, 1]
        if self._settings.bounds is None:
            best, found = self._inside(best, iterates[0], values[0])
        if batch == 1:
            return graph("Clip", graph.reshape(best, horizon, action_dim), -1.0, 1.0)
        winner = graph("ArgMax", graph.reshape(found, batch), axis=0, keepdims=0)
        return graph("Clip", graph("Gather", best, winner, axis=0), -1.0, 1.0)

    def _inside(self, best: Value, start: Value, start_values: Value) -> tuple[Value, Value]:
        """Brought into the box, the best iterate may be worse than the start, if that lies inside."""
        graph = self._graph
        best = graph("Transpose", graph("Clip", best, -1.0, 1.0), perm=[1, 0, 2])
        values, start_values = self._finite(self._objective.value(best)), self._finite(start_values)
        farthest = graph.reduce("Max", graph("Abs", start), 0, 2)  # [1, B, 1]
        stays = graph("And", graph("LessOrEqual", farthest, 1.0), graph("Less", values, start_values))
        best = graph("Transpose", graph("Where", stays, start, best), perm=[1, 0, 2])
        return best, graph("Where", stays, start_values, values)

    def _finite(self, values: Value) -> Value:
        return self._graph("Where", self._graph("Less", self._graph("Abs", values), INF), values, -INF)


class _DampedGaussNewton:
    """See :mod:`difftori_gym.trajopt.levenberg_marquardt`."""

    def __init__(self, graph: Graph, settings: TrajectoryOptimizer) -> None:
        self._graph, self._settings = graph, settings

    def step(self, index: int, point: Value, value: Value, gradient: Value) -> Value:
        graph, settings = self._graph, self._settings
        free = gradient
        if settings.bounds == "project":  # walls are at -1 and 1
            free = graph("Where", graph("Equal", point, graph("Sign", gradient)), 0.0, gradient)
        curvature = graph.reduce("SumSquare", free, 0, 2)
        left = graph("Mul", graph("Sub", settings.residual_offset, value), settings.step_size)
        gain = graph("Div", left, graph("Add", curvature, settings.damping))
        return graph("Add", point, graph("Mul", gain, gradient))


class _ShrinkingSteps:
    """See :mod:`difftori_gym.trajopt.adam`."""

    def __init__(self, graph: Graph, settings: TrajectoryOptimizer) -> None:
        self._graph, self._settings = graph, settings
        self._size: Value | None = None
        self._means: tuple[Value, Value] | None = None
        self._weights = 0.0, 0.0

    def step(self, index: int, point: Value, value: Value, gradient: Value) -> Value:
        graph = self._graph
        if self._size is None:
            size = graph.reduce("Max", graph("Abs", gradient), 0, 2)
            usable = graph("And", graph("Greater", size, 0.0), graph("Less", size, INF))
            self._size = graph("Where", usable, size, 1.0)
        gradient = graph("Div", gradient, self._size)
        first, second = self._updated(gradient)
        mean = graph("Mul", graph.reduce("Mean", second, 0, 2), FLOOR**2)
        root = graph("Sqrt", graph("Max", graph("Add", second, mean), TINY))
        rate = self._settings.step_size * 0.1 ** (index / TENTH_AFTER)
        rate *= self._weights[1] ** 0.5 / self._weights[0]
        return graph("Add", point, graph("Mul", graph("Div", first, root), rate))

    def _updated(self, gradient: Value) -> tuple[Value, Value]:
        graph, rates = self._graph, (1.0 - BETA_1, 1.0 - BETA_2)
        new = gradient, graph("Mul", gradient, gradient)
        if self._means is None:
            first, second = (graph("Mul", each, rate) for each, rate in zip(new, rates, strict=True))
        else:
            first, second = (
                graph("Add", graph("Mul", old, 1.0 - rate), graph("Mul", each, rate))
                for old, each, rate in zip(self._means, new, rates, strict=True)
            )
        self._means = first, second
        self._weights = (
            self._weights[0] + rates[0] * (1.0 - self._weights[0]),
            self._weights[1] + rates[1] * (1.0 - self._weights[1]),
        )
        return first, second


class _Rule(Protocol):
    def __init__(self, graph: Graph, settings: TrajectoryOptimizer) -> None: ...

    def step(self, index: int, point: Value, value: Value, gradient: Value) -> Value: ...


RULES: dict[str, type[_Rule]] = {"lm": _DampedGaussNewton, "adam": _ShrinkingSteps}
