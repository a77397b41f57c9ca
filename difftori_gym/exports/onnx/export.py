"""A policy as one ONNX file from observations to actions, planner included, and a description of it as JSON."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.vec_env import VecNormalize

from difftori_gym.baselines.drqv2 import DrQv2Policy
from difftori_gym.baselines.tdmpc2_policies import TDMPC2Policy
from difftori_gym.checkpointing.files import atomic_file
from difftori_gym.exports.onnx.encoders import features
from difftori_gym.exports.onnx.graph import OPSET, Graph, Value
from difftori_gym.exports.onnx.imitation import imitation_action
from difftori_gym.exports.onnx.layers import network
from difftori_gym.exports.onnx.memory import Memory
from difftori_gym.exports.onnx.observations import ACTION, LONE, input_dtype, observation_inputs, preprocessed
from difftori_gym.exports.onnx.planning import PlanningGraph
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.exports.onnx.tdmpc2 import TDMPC2PlanningGraph
from difftori_gym.exports.policies import POLICIES
from difftori_gym.il.policies import ImitationPolicy
from difftori_gym.observations import entries
from difftori_gym.rl import DiffTORIPolicy

SCHEMA, VERSION = "difftori-gym/onnx-policy", 1


def write_onnx(model: BaseAlgorithm | BasePolicy, path: Path, control_hz: float | None) -> Path:
    """See :func:`difftori_gym.exports.export_onnx`."""
    policy = _policy_of(model)
    policy.set_training_mode(False)
    _check_weights(policy)
    graph = Graph()
    memory = Memory(graph)
    _output_action(graph, _action(graph, policy, memory), policy.action_space)
    try:
        producer = version("difftori-gym")
    except PackageNotFoundError:
        producer = "unknown"
    written = graph.model(producer).SerializeToString(deterministic=True)
    description = {
        "schema": SCHEMA,
        "version": VERSION,
        "policy": type(policy).__name__,
        "algorithm": None if isinstance(model, BasePolicy) else type(model).__name__,
        "num_timesteps": None if isinstance(model, BasePolicy) else model.num_timesteps,
        "difftori_gym": producer,
        "opset": OPSET,
        "control_hz": control_hz,
        "observations": [_of_observation(key, entry) for key, entry in entries(policy.observation_space).items()],
        "memory": [part.to_json() for part in memory.parts],
        "action": _of_action(policy.action_space),
    }
    text = json.dumps(description, indent=2, allow_nan=False) + "\n"
    with atomic_file(path) as file:
        file.write(written)
    with atomic_file(path.with_suffix(".json")) as file:
        file.write(text.encode("utf-8"))
    return path


def _policy_of(model: BaseAlgorithm | BasePolicy) -> Any:
    if isinstance(model, BasePolicy):
        return model
    normalizer = model.get_vec_normalize_env()
    if isinstance(normalizer, VecNormalize) and normalizer.norm_obs:
        raise cannot("a policy behind VecNormalize", "train with policy_kwargs=dict(norm_obs=True) in its place")
    return model.policy


def _check_weights(policy: BasePolicy) -> None:
    for name, value in policy.state_dict().items():
        if not bool(value.isfinite().all()):
            raise cannot(f"nan or infinity in {name!r}", "the model has diverged, export an earlier checkpoint")


def _action(graph: Graph, policy: Any, memory: Memory) -> Value:
    """The action ``[A]`` in [-1, 1]."""
    known_classes = [cls for cls, _ in POLICIES.values()]
    if type(policy) not in known_classes:
        known = ", ".join(cls.__name__ for cls in known_classes)
        raise cannot(f"the policy {type(policy).__name__}", f"it writes {known}; other classes act with torch")
    if isinstance(policy, TDMPC2Policy):
        return TDMPC2PlanningGraph(graph, policy, memory).action()
    if isinstance(policy, DiffTORIPolicy):
        return PlanningGraph(graph, policy, memory).action()
    if isinstance(policy, ImitationPolicy):
        return imitation_action(graph, policy, memory)
    assert isinstance(policy, DrQv2Policy)
    parts = observation_inputs(graph, policy.observation_space)
    parts = preprocessed(graph, parts, policy.observation_space, normalize_images=policy.normalize_images)
    action, _ = network(graph, policy.actor, features(graph, policy.encoder, parts, 1), "the actor")
    return action


def _output_action(graph: Graph, action: Value, space: spaces.Box) -> None:
    """In the environment's units and shape, inside its bounds."""
    size, dtype = get_action_dim(space), np.dtype(space.dtype)
    work = dtype if dtype == np.float64 else np.dtype(np.float32)
    low, high = (bound.reshape(-1).astype(work) for bound in (space.low, space.high))
    action = graph.reshape(action, size)
    if work == np.float64:
        action = graph.cast(action, work)
    half = (high - low) * work.type(0.5)
    moved = graph("Add", graph("Mul", graph("Add", action, np.ones(1, work)), half), low)
    inside = graph("Min", graph("Max", moved, low), high)
    inside = graph.reshape(inside, *space.shape)
    graph.output(ACTION, inside if work == dtype else graph.cast(inside, dtype), space.shape, dtype)


def _of_observation(key: str | None, space: spaces.Space[Any]) -> dict[str, Any]:
    described = {
        "input": LONE if key is None else key,
        "shape": list(space.shape or ()),
        "dtype": str(input_dtype(space)),
    }
    if isinstance(space, spaces.Box):
        described |= {"low": _bounds(space.low), "high": _bounds(space.high)}
    return {**described, "unit": "the environment's"}


def _of_action(space: spaces.Box) -> dict[str, Any]:
    bounds = {"low": _bounds(space.low), "high": _bounds(space.high)}
    described = {"output": ACTION, "shape": list(space.shape), "dtype": str(np.dtype(space.dtype))}
    return {**described, **bounds, "unit": "the environment's"}


def _bounds(bound: np.ndarray) -> Any:
    """A number for all entries, or one for each; None for no bound."""
    flat = [float(each) if np.isfinite(each) else None for each in bound.reshape(-1)]
    return flat[0] if flat and all(each == flat[0] for each in flat) else flat
