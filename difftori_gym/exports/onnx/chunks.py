"""The networks of imitation as ONNX operations: from features of observations to a chunk of actions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from difftori_gym.baselines.bc import ActionHead, BCNetwork
from difftori_gym.baselines.bc_rnn import BCRNNNetwork
from difftori_gym.baselines.diffusion_policy import DiffusionNetwork
from difftori_gym.baselines.flow_matching import FlowNetwork
from difftori_gym.baselines.ibc import IBCNetwork
from difftori_gym.baselines.mip import MIPNetwork
from difftori_gym.baselines.residual import ResidualNetwork
from difftori_gym.exports.onnx.chunk_objective import ChunkObjective
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import network, numbers
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.exports.onnx.scan import Objective, ScanObjective
from difftori_gym.exports.onnx.solvers import solve
from difftori_gym.exports.onnx.unet import carried, denoised, regressed
from difftori_gym.il.difftori_network import DiffTORINetwork
from difftori_gym.il.networks import ChunkNetwork
from difftori_gym.models import ChunkScore
from difftori_gym.models.call_lists import Modules, Parts


def chunk(graph: Graph, module: ChunkNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """
    :param features: of the last observations ``[n_obs_steps, F]``
    :param noise: that the chunk is a function of ``[noise_dim]``
    :param start: the base policy's actions ``[H, A]``, None without one
    :return: actions ``[H, A]``
    :raises ValueError: for a network that cannot be written
    """
    if type(module) is IBCNetwork:
        raise cannot(
            "IBC: its action is the best of thousands of samples, resampled again and again",
            "act with torch, or distil it into BC",
        )
    if type(module) not in CHUNKS:
        known = ", ".join(kind.__name__ for kind in CHUNKS)
        raise cannot(f"the network {type(module).__name__}", f"use one of {known}, or act with torch")
    return CHUNKS[type(module)](graph, module, features, noise, start)


def _flat(graph: Graph, features: Value) -> Value:
    return graph.reshape(features, 1, -1)


def _cloned(graph: Graph, module: BCNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    hidden, _ = network(graph, module.body, _flat(graph, features), "BC")
    return _head(graph, module.head, hidden)


def _recurrent(graph: Graph, module: BCRNNNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    rnn = module.rnn
    value = graph("Unsqueeze", features, np.array([1], np.int64))  # [T, 1, F]
    for layer in range(rnn.num_layers):
        weights = [_gates(getattr(rnn, f"{name}_l{layer}")) for name in ("weight_ih", "weight_hh")]
        biases = [_gates(getattr(rnn, f"{name}_l{layer}")) for name in ("bias_ih", "bias_hh")]
        parameters = [*(each[None] for each in weights), np.concatenate(biases)[None]]
        outputs = graph("LSTM", value, *parameters, hidden_size=rnn.hidden_size)  # [T, 1, 1, hidden]
        value = graph.reshape(outputs, -1, 1, rnn.hidden_size)
    last = graph("Gather", value, np.int64(-1), axis=0)  # [1, hidden]
    return _head(graph, module.head, last)


def _gates(parameter: Any) -> np.ndarray:
    """Torch's order of the gates, input, forget, cell, output -> input, output, forget, cell."""
    of_input, forget, cell, output = np.split(numbers(parameter), 4)
    return np.concatenate([of_input, output, forget, cell])


def _head(graph: Graph, head: ActionHead, features: Value) -> Value:
    outputs, _ = network(graph, head.linear, features, "the head")
    if head.kind == "deterministic":
        return graph.reshape(graph("Tanh", outputs), *head.shape)
    size = head.num_modes * head.shape[0] * head.shape[1]
    means, _, logits = graph.split(outputs, [size, size, head.num_modes], axis=1)
    likeliest = graph.reshape(graph("ArgMax", logits, axis=1, keepdims=0), 1)
    modes = graph.reshape(graph("Tanh", means), head.num_modes, *head.shape)
    return graph.reshape(graph("Gather", modes, likeliest, axis=0), *head.shape)


def _corrected(graph: Graph, module: ResidualNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    assert start is not None
    inputs = graph.concat([_flat(graph, features), graph.reshape(start, 1, -1)], 1)
    correction, _ = network(graph, module.correction, inputs, "the correction")
    return graph("Add", start, graph.reshape(correction, module.horizon, module.action_dim))


def _optimised(graph: Graph, module: DiffTORINetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    count, size = module.num_latents, (module.horizon, module.action_dim)
    latents = noise[: count * module.latent_dim].reshape(count, module.latent_dim)
    flat = _flat(graph, features)
    condition = flat if count == 1 else graph.expand(flat, count, module.condition_dim)
    if module.latent_dim:
        condition = graph.concat([condition, latents], 1)
    shape = module.horizon, count, module.action_dim
    if module.init == "base_policy":
        assert start is not None
        begin = graph.expand(graph.reshape(start, module.horizon, 1, module.action_dim), *shape)
    else:
        drawn = noise[count * module.latent_dim :] if module.init == "random" else np.zeros(size, np.float32)
        uniform = torch.erf(torch.as_tensor(drawn).reshape(size) / 2**0.5).numpy()
        begin = graph.constant(np.broadcast_to(uniform[:, None], shape))
    objective_of = _scores(graph, module, condition, shape)
    generator = torch.Generator().manual_seed(0)
    optimizer = module.trajectory_optimizer.replace(backward_mode="none")
    return solve(graph, objective_of, begin, shape, optimizer, generator)


def _scores(
    graph: Graph, module: DiffTORINetwork, condition: Value, shape: tuple[int, int, int]
) -> Callable[[int], Objective]:
    horizon, batch, action_dim = shape
    score = module.score

    def copies(value: Value, count: int) -> Value:
        return graph.concat([value] * count, 0)

    if isinstance(score, ChunkScore):
        network_of_score, condition_dim = score.network, score.condition_dim

        def of_chunk(count: int) -> Objective:
            sizes = horizon, count * batch, action_dim
            return ChunkObjective(graph, network_of_score, copies(condition, count), sizes, condition_dim)

        return of_chunk
    z, _ = network(graph, score.encoder, condition, "the score's encoder")
    last = list(score.encoder)[-1]
    assert isinstance(last, nn.Linear)
    modules: Modules = Parts([score.score], [score.dynamics])
    discount, state_dim = score.discount, last.out_features

    def of_steps(count: int) -> Objective:
        sizes = horizon, count * batch, action_dim
        return ScanObjective(graph, modules, copies(z, count), sizes, state_dim, discount)

    return of_steps


CHUNKS: dict[type[ChunkNetwork], Callable[[Graph, Any, Value, np.ndarray, Value | None], Value]] = {
    BCNetwork: _cloned,
    BCRNNNetwork: _recurrent,
    ResidualNetwork: _corrected,
    DiffTORINetwork: _optimised,
    DiffusionNetwork: denoised,
    FlowNetwork: carried,
    MIPNetwork: regressed,
}
"""A further network is one entry."""
