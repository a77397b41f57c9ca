"""The policies of DiffTORI and TD-MPC: encode, start, optimise, take the first action."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from difftori_gym.exports.onnx.encoders import features, forward
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import network
from difftori_gym.exports.onnx.memory import Memory
from difftori_gym.exports.onnx.observations import normalized, observation_inputs, preprocessed
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.exports.onnx.sampling import WEIGHTS, refit_to_elites
from difftori_gym.exports.onnx.scan import ScanObjective
from difftori_gym.exports.onnx.solvers import solve
from difftori_gym.models.latent_objective import modules_of
from difftori_gym.rl import DiffTORIPolicy
from difftori_gym.rl.planning import Planner

TANH_IS_ONE = 9.0108404
"""From here on the float32 nearest to tanh is 1, which torch finds; onnxruntime's approximation is there at 8 or 9."""
BELOW_ONE = 1.0 - 2.0**-24


class PlanningGraph:
    """
    Writes what ``policy.predict(observation, deterministic=True)`` computes.

    Random numbers are those of deterministic predictions, the same for every observation, and constants of the file.
    """

    planner_class: type[Planner] = Planner

    def __init__(self, graph: Graph, policy: DiffTORIPolicy, memory: Memory) -> None:
        if type(policy.planner) is not self.planner_class:
            remedy = f"plan with {self.planner_class.__name__} itself, or act with torch"
            raise cannot(f"the planner {type(policy.planner).__name__}", remedy)
        self._graph, self._policy, self._memory = graph, policy, memory
        self._model: Any = policy.model
        self._horizon, self._action_dim = policy.horizon, policy.model.action_dim
        self._generator = torch.Generator().manual_seed(0)

    def action(self) -> Value:
        """The action ``[A]`` in [-1, 1]."""
        graph, planner = self._graph, self._policy.planner
        z = self._encoded()
        start = self._start(z)
        if planner.optimizer.solver in WEIGHTS:
            plan, carried = self._sampled(z, start)
        else:
            shape = self._horizon, 1, self._action_dim
            optimizer = planner.for_acting().optimizer
            plan = solve(graph, lambda count: self.objective(z, count), start, shape, optimizer, self._generator)
            carried = plan
        if planner.init == "warm":
            self._memory.remember("plan", carried)
        return graph("Gather", plan, np.int64(0), axis=0)

    def objective(self, z: Value, count: int) -> ScanObjective:
        """The imagined return of ``count`` plans from one state ``[1, Z]``."""
        modules = modules_of(self._model)
        if modules is None:
            raise cannot(f"the model {type(self._model).__name__}", "plan in a LatentModel of the package")
        repeated = z if count == 1 else self._graph.expand(z, count, self._model.latent_dim)
        shape = self._horizon, count, self._action_dim
        discount = self._policy.planner.discount
        return ScanObjective(self._graph, modules, repeated, shape, self._model.latent_dim, discount)

    def _encoded(self) -> Value:
        graph, policy = self._graph, self._policy
        parts = observation_inputs(graph, policy.observation_space)
        parts = preprocessed(graph, parts, policy.observation_space, normalize_images=policy.normalize_images)
        parts = normalized(graph, parts, policy.observation_norm)
        return forward(graph, policy.encoder.head, features(graph, policy.encoder.features_extractor, parts, 1))

    def _start(self, z: Value) -> Value:
        """``[H, 1, A]``"""
        graph, shape, init = self._graph, (self._horizon, 1, self._action_dim), self._policy.planner.init
        if init == "zero":
            return graph.constant(np.zeros(shape, np.float32))
        if init == "random":
            drawn = 2.0 * torch.rand(1, self._horizon, self._action_dim, generator=self._generator) - 1.0
            return graph.constant(drawn.transpose(0, 1))
        rollout = self._rollout(z, 1, None)
        if init != "warm":
            return rollout
        size = self._horizon, self._action_dim
        meaning = "plan of the last call, actions in [-1, 1]"
        previous = self._memory.recall("plan", size, np.float32, initial=0.0, meaning=meaning)
        begun = self._memory.begun()
        shifted = graph.reshape(graph.slice(previous, 1, self._horizon), self._horizon - 1, 1, self._action_dim)
        if self._horizon > 1:
            last = graph.slice(rollout, self._horizon - 1, self._horizon)
            return graph("Where", begun, graph.concat([shifted, last], 0), rollout)
        return rollout

    def _rollout(self, z: Value, batch: int, noise: Tensor | None) -> Value:
        """The prior's actions ``[H, B, A]`` from ``[B, Z]``, with noise ``[B, H, A]``."""
        graph, actions = self._graph, list[Value]()
        for t in range(self._horizon):
            raw, _ = network(graph, self._model.actor, z, "the prior")
            action = _tanh(graph, raw)
            if noise is not None:
                action = graph("Clip", graph("Add", action, noise[:, t]), -1.0, 1.0)
            actions.append(action)
            if t + 1 < self._horizon:
                z, _ = network(graph, self._model.dynamics, graph.concat([z, action], 1), "the dynamics")
        return graph.reshape(graph.concat(actions, 0), self._horizon, batch, self._action_dim)

    def _sampled(self, z: Value, start: Value) -> tuple[Value, Value]:
        """The best sequence that was drawn, and the mean that a warm start goes on from, ``[H, A]`` each."""
        graph, planner, size = self._graph, self._policy.planner, (self._horizon, self._action_dim)
        count, candidates = planner.num_prior_samples, None
        if count:
            noise = torch.randn(count, *size, generator=self._generator)
            repeated = graph.expand(z, count, self._model.latent_dim)
            candidates = self._rollout(repeated, count, planner.optimizer.min_std * noise)

        def valued(samples: int, actions: Value) -> Value:
            return self.objective(z, samples).value(actions)

        found = refit_to_elites(graph, valued, start, candidates, count, size, planner.optimizer, self._generator)
        return found[:2]


def _tanh(graph: Graph, x: Value) -> Value:
    """
    The prior's action, which is at the wall where torch's is.

    Not an ulp may be missing: a wall holds what touches it, so a start beside it leads elsewhere.
    """
    inside = graph("Clip", graph("Tanh", x), -BELOW_ONE, BELOW_ONE)
    return graph("Where", graph("Less", graph("Abs", x), TANH_IS_ONE), inside, graph("Sign", x))
