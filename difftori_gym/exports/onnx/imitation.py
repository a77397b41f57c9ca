"""The policies of imitation: observations are remembered, a chunk is asked for, its actions are executed in turn."""

from __future__ import annotations

from typing import Any

import numpy as np

from difftori_gym.exports.onnx.chunks import chunk
from difftori_gym.exports.onnx.encoders import features
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.memory import Memory
from difftori_gym.exports.onnx.observations import LONE, Parts, input_dtype, observation_inputs, scaled
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.observations import entries


def imitation_action(graph: Graph, policy: ImitationPolicy, memory: Memory) -> Value:
    """The action ``[A]`` in [-1, 1] of ``policy.predict(observation, deterministic=True)``."""
    frames = _frames(graph, policy, memory)
    noise = policy.draw_noise(1, deterministic=True)[0].cpu().numpy()
    size = policy.n_action_steps, policy.action_dim
    if policy.n_action_steps == 1:
        plan = _chunk(graph, policy, frames, noise)
        return graph("Gather", plan, np.int64(0), axis=0)
    position = memory.recall(
        "position", (), np.int64, initial=float(policy.n_action_steps), meaning="index of the chunk's next action"
    )
    kept = memory.recall("chunk", size, np.float32, initial=0.0, meaning="actions of the last plan, in [-1, 1]")
    used_up = graph("GreaterOrEqual", position, np.int64(policy.n_action_steps))
    with graph.branch() as planning:
        planned = graph.slice(_chunk(graph, policy, frames, noise), 0, policy.n_action_steps)
    with graph.branch() as waiting:
        same = graph("Identity", kept)
    plan = graph.choose(used_up, [(planning, planned), (waiting, same)], size)
    now = graph("Where", used_up, np.int64(0), position)
    memory.remember("position", graph("Add", now, np.int64(1)))
    memory.remember("chunk", plan)
    return graph("Gather", plan, now, axis=0)


def _frames(graph: Graph, policy: ImitationPolicy, memory: Memory) -> dict[Any, Value]:
    """The last observations of each entry, raw, ``[history_steps, ...]``."""
    inputs = observation_inputs(graph, policy.observation_space)
    spaces_of, steps = entries(policy.observation_space), policy.history_steps
    newest = {key: graph.reshape(value, 1, *spaces_of[key].shape) for key, value in inputs.items()}
    if steps == 1:
        return newest
    begun, frames = memory.begun(), {}
    for key, value in newest.items():
        name, shape = f"history.{key or LONE}", spaces_of[key].shape
        meaning = f"the last {steps - 1} observations, oldest first, in the environment's units"
        sizes = (steps - 1, *shape)
        past = memory.recall(name, sizes, input_dtype(spaces_of[key]), initial=0.0, meaning=meaning)
        past = graph("Where", begun, past, graph.expand(value, *sizes))
        frames[key] = graph.concat([past, value], 0)
        memory.remember(name, graph.slice(frames[key], 1, steps))
    return frames


def _chunk(graph: Graph, policy: ImitationPolicy, frames: Parts, noise: np.ndarray) -> Value:
    """Planned actions ``[H, A]`` from at least as many frames as the policy reads."""
    acting, start = policy.acting, None
    if policy.base is not None:
        start = _start(graph, policy, frames, noise[acting.noise_dim :])
    encoder, steps = acting.encoder, acting.encoder.n_obs_steps
    count = policy.history_steps
    seen = {key: graph.slice(value, count - steps, count) if count > steps else value for key, value in frames.items()}
    shapes = {key: space.shape or (1,) for key, space in entries(policy.observation_space).items()}
    vectors = {key: graph.reshape(value, steps, *shapes[key]) for key, value in seen.items()}
    ready = scaled(graph, vectors, encoder.normalizer, policy.observation_space)
    read = features(graph, encoder.features_extractor, ready, steps)
    planned = chunk(graph, acting, read, noise[: acting.noise_dim], start)
    return graph("Clip", planned, -1.0, 1.0)


def _start(graph: Graph, policy: ImitationPolicy, frames: Parts, noise: np.ndarray) -> Value:
    """Actions of the base policy ``[H, A]``, its last one repeated if it plans less far."""
    base = policy.base
    assert base is not None
    own, needed = policy.history_steps, base.history_steps
    recent = {key: graph.slice(value, own - needed, own) if own > needed else value for key, value in frames.items()}
    actions = _chunk(graph, base, recent, noise)
    if base.horizon >= policy.horizon:
        return graph.slice(actions, 0, policy.horizon) if base.horizon > policy.horizon else actions
    last = graph.slice(actions, base.horizon - 1, base.horizon)
    repeated = graph.expand(last, policy.horizon - base.horizon, policy.action_dim)
    return graph.concat([actions, repeated], 0)
