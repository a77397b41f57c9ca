"""The sampling solvers as ONNX operations; what :mod:`difftori_gym.trajopt.sampling` does with fixed draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.trajopt import TrajectoryOptimizer

INF = float("inf")
ValueOf = Callable[[int, Value], Value]
"""Number of sequences and the sequences ``[H, N, A]`` -> values ``[1, N, 1]``."""


def refit_to_elites(
    graph: Graph,
    value_of: ValueOf,
    start: Value,
    candidates: Value | None,
    num_candidates: int,
    size: tuple[int, int],
    settings: TrajectoryOptimizer,
    generator: torch.Generator,
) -> tuple[Value, Value, Value]:
    """
    :param start: ``[H, 1, A]``
    :param candidates: that compete beside the draws ``[H, N, A]``
    :param size: H, A
    :param generator: of the draws, which become constants
    :return: the best sequence that was seen, the mean in the end, and an elite drawn by its weight, ``[H, A]`` each
    """
    horizon, action_dim = size
    num_draws = max(settings.num_samples - num_candidates, 1)
    count = num_draws + num_candidates
    mean = graph("Clip", start, -1.0, 1.0)
    std = graph.constant(np.full((horizon, 1, action_dim), settings.max_std, np.float32))
    elite = mean
    best, best_value = mean, graph.reshape(_finite(graph, value_of(1, mean)), 1)
    for _ in range(settings.max_iterations):
        noise = torch.randn(num_draws, 1, *size, generator=generator)[:, 0].transpose(0, 1)
        drawn = graph("Clip", graph("Add", mean, graph("Mul", std, noise)), -1.0, 1.0)
        samples = drawn if candidates is None else graph.concat([drawn, candidates], 1)
        values = graph.reshape(_finite(graph, value_of(count, samples)), count)
        num_elites = min(settings.num_elites, count)
        top, index = graph.several("TopK", 2, values, np.array([num_elites], np.int64), axis=0)
        elites = graph("Gather", samples, index, axis=1)  # [H, E, A]
        shares = WEIGHTS[str(settings.solver)](graph, top, settings)
        weights = graph.reshape(shares, 1, num_elites, 1)
        refitted = graph.reduce("Sum", graph("Mul", elites, weights), 1)
        apart = graph("Sub", elites, refitted)
        spread = graph("Sqrt", graph.reduce("Sum", graph("Mul", graph("Mul", apart, apart), weights), 1))
        found = graph.slice(top, 0, 1)
        usable = graph("Greater", found, -INF)
        std = graph("Where", usable, graph("Clip", spread, settings.min_std, settings.max_std), std)
        kept, new = graph("Mul", mean, settings.momentum), graph("Mul", refitted, 1.0 - settings.momentum)
        mean = graph("Where", usable, graph("Add", kept, new), mean)
        elite = graph("Where", usable, _drawn(graph, elites, shares, num_elites, generator), elite)
        better = graph("Greater", found, best_value)
        best = graph("Where", better, graph.slice(elites, 0, 1, axis=1), best)
        best_value = graph("Max", best_value, found)
    return graph.reshape(best, *size), graph.reshape(mean, *size), graph.reshape(elite, *size)


def _drawn(graph: Graph, elites: Value, weights: Value, count: int, generator: torch.Generator) -> Value:
    """One of the elites ``[H, E, A]``, drawn as ``torch.multinomial`` does: greatest weight over exponential noise."""
    noise = torch.empty(count).exponential_(generator=generator)
    shares = graph("Add", weights, float(np.finfo(np.float32).tiny))
    index = graph("ArgMax", graph("Div", shares, noise), axis=0)
    return graph("Gather", elites, index, axis=1)


def _finite(graph: Graph, values: Value) -> Value:
    return graph("Where", graph("Less", graph("Abs", values), INF), values, -INF)


def _exponential(graph: Graph, elite_values: Value, settings: TrajectoryOptimizer) -> Value:
    advantage = graph("Sub", elite_values, graph.slice(elite_values, 0, 1))
    return graph("Softmax", graph("Mul", advantage, settings.temperature), axis=0)


def _equal(graph: Graph, elite_values: Value, settings: TrajectoryOptimizer) -> Value:
    counts = graph.cast(graph("Greater", elite_values, -INF), np.float32)
    return graph("Div", counts, graph.reduce("Sum", counts, 0))


WEIGHTS = {"mppi": _exponential, "cem": _equal}
"""How much each elite counts, from values ``[E]``, best first, to weights ``[E]``."""
