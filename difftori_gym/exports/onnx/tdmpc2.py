"""The policy of TD-MPC2: encode, draw and refit, take the first action of the elite that is drawn."""

from __future__ import annotations

import random

import numpy as np
import torch

from difftori_gym.baselines.tdmpc2_networks import LOG_STD_BOUNDS, TDMPC2Model
from difftori_gym.baselines.tdmpc2_planning import TDMPC2Planner
from difftori_gym.baselines.tdmpc2_policies import TDMPC2Policy
from difftori_gym.exports.onnx.encoders import forward
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.memory import Memory
from difftori_gym.exports.onnx.planning import PlanningGraph
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.exports.onnx.sampling import WEIGHTS, refit_to_elites


class TDMPC2PlanningGraph(PlanningGraph):
    """The same with TD-MPC2's networks, whose draws come from the generator in the order of torch's."""

    planner_class = TDMPC2Planner
    _model: TDMPC2Model

    def __init__(self, graph: Graph, policy: TDMPC2Policy, memory: Memory) -> None:
        super().__init__(graph, policy, memory)
        if type(policy.model) is not TDMPC2Model:
            raise cannot(f"the model {type(policy.model).__name__}", "plan in a TDMPC2Model, or act with torch")
        if policy.planner.optimizer.solver not in WEIGHTS:
            remedy = f"plan with one of {', '.join(WEIGHTS)}, or act with torch"
            raise cannot(f"the solver {policy.planner.optimizer.solver!r} of TDMPC2", remedy)

    def _start(self, z: Value) -> Value:
        graph, size = self._graph, (self._horizon, self._action_dim)
        zero = graph.constant(np.zeros((self._horizon, 1, self._action_dim), np.float32))
        if self._policy.planner.init != "warm":
            return zero
        previous = self._memory.recall(
            "plan", size, np.float32, initial=0.0, meaning="mean of the last call, actions in [-1, 1]"
        )
        kept = graph.slice(previous, 1, self._horizon)
        shifted = graph.concat([kept, np.zeros((1, self._action_dim), np.float32)], 0)
        return graph.reshape(shifted, self._horizon, 1, self._action_dim)

    def _sampled(self, z: Value, start: Value) -> tuple[Value, Value]:
        graph, planner, size = self._graph, self._policy.planner, (self._horizon, self._action_dim)
        chooser = random.Random(int(torch.randint(2**62, (), generator=self._generator)))
        count, candidates = planner.num_prior_samples, None
        if count:
            candidates = self._prior_samples(graph.expand(z, count, self._model.latent_dim), count)

        def valued(samples: int, actions: Value) -> Value:
            return self._values(graph.expand(z, samples, self._model.latent_dim), samples, actions, chooser)

        _, mean, elite = refit_to_elites(
            graph, valued, start, candidates, count, size, planner.optimizer, self._generator
        )
        return elite, mean

    def _prior_samples(self, z: Value, count: int) -> Value:
        """``[H, N, A]`` from ``[N, Z]``"""
        noise = torch.randn(self._horizon, count, self._action_dim, generator=self._generator)
        actions: list[Value] = []
        for t in range(self._horizon):
            actions.append(self._sample(z, noise[t]))
            if t + 1 < self._horizon:
                z = forward(self._graph, self._model.dynamics, self._joint(z, actions[-1]), "the dynamics")
        return self._graph.reshape(self._graph.concat(actions, 0), self._horizon, count, self._action_dim)

    def _values(self, z: Value, count: int, actions: Value, chooser: random.Random) -> Value:
        """Returns ``[1, N, 1]``, see :class:`difftori_gym.baselines.tdmpc2_planning.SampledReturn`."""
        graph, model, discount = self._graph, self._model, self._policy.planner.discount
        inputs, weights = [], [graph.constant(np.ones((count, 1), np.float32))]
        for action in graph.split(actions, [1] * self._horizon):
            inputs.append(self._joint(z, graph.reshape(action, count, self._action_dim)))
            z = forward(graph, model.dynamics, inputs[-1], "the dynamics")
            weight = graph("Mul", weights[-1], discount)
            if model.episodic:
                ended = graph("Greater", forward(graph, model.termination, z, "the termination"), 0.0)
                weight = graph("Where", ended, 0.0, weight)
            weights.append(weight)
        rewards = self._decoded(forward(graph, model.reward, graph.concat(inputs, 0), "the reward"))
        noise = torch.randn(count, self._action_dim, generator=self._generator)
        members = model.critic.members
        two = chooser.sample(range(len(members)), min(2, len(members)))
        last = self._joint(z, self._sample(z, noise))
        each = [self._decoded(forward(graph, members[index], last, "the values")) for index in two]
        value = graph("Div", graph("Add", *each), 2.0) if len(each) > 1 else each[0]
        terms = graph("Mul", graph.concat(weights, 0), graph.concat([rewards, value], 0))
        return graph.reduce("Sum", graph.reshape(terms, self._horizon + 1, count, 1), 0)

    def _joint(self, z: Value, action: Value) -> Value:
        return self._graph.concat([z, action], 1)

    def _sample(self, z: Value, noise: torch.Tensor) -> Value:
        """The prior's actions ``[N, A]`` in ``[N, Z]`` for noise ``[N, A]``."""
        graph, (low, high) = self._graph, LOG_STD_BOUNDS
        mean, x = graph.split(forward(graph, self._model.actor, z, "the prior"), [self._action_dim] * 2, axis=1)
        share = graph("Mul", graph("Add", graph("Tanh", x), 1.0), 0.5 * (high - low))
        std = graph("Exp", graph("Add", share, low))
        return graph("Tanh", graph("Add", mean, graph("Mul", std, noise)))

    def _decoded(self, logits: Value) -> Value:
        """Logits ``[N, K]`` -> numbers ``[N, 1]``; e^|x| - 1 with the sign of x is 2 e^|x/2| sinh(x/2)."""
        graph = self._graph
        mean = graph("MatMul", graph("Softmax", logits, axis=1), self._model.bins.centres[:, None])
        half = graph("Mul", mean, 0.5)
        return graph("Mul", graph("Mul", graph("Exp", graph("Abs", half)), 2.0), graph("Sinh", half))
