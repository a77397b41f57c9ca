"""Observations as inputs of a graph, and what networks read: floats, of one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from torch import nn

from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import numbers
from difftori_gym.exports.onnx.memory import AFTER, BEFORE
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.il.normalization import ImageNormalizer, MinMaxNormalizer, ObservationNormalizer
from difftori_gym.models import ObservationNorm
from difftori_gym.models.observation_norm import CLIP, RunningNorm
from difftori_gym.observations import entries

Parts = Mapping[Any, Value]
"""Entries of an observation by key; the key of a lone one is None."""
LONE = "observation"
"""Name of the input for an observation that is no dictionary."""
ACTION = "action"
"""Name of the output."""
TAKEN = (BEFORE, AFTER, "~")
"""What the names of memory, and of values inside, begin with."""


def input_dtype(space: spaces.Space[Any]) -> np.dtype[Any]:
    """What an entry is handed over as: floats as float32, as networks read them, and whole numbers as they are."""
    kind = np.dtype(space.dtype)
    return np.dtype(np.float32) if kind.kind == "f" else kind


def observation_inputs(graph: Graph, space: spaces.Space[Any]) -> dict[Any, Value]:
    """An input for every entry, under its key."""
    taken = {}
    for key, entry in entries(space).items():
        name = LONE if key is None else key
        if name == ACTION or name.startswith(TAKEN):
            raise cannot(f"observations under the key {key!r}", "rename it in a gymnasium.ObservationWrapper")
        taken[key] = graph.input(name, entry.shape or (), input_dtype(entry))
    return taken


def preprocessed(graph: Graph, parts: Parts, space: spaces.Space[Any], *, normalize_images: bool) -> dict[Any, Value]:
    """Stable-Baselines3's ``preprocess_obs`` of entries without a batch -> with a batch of one, float32."""
    found = entries(space)
    return {key: _preprocessed(graph, value, found[key], normalize_images) for key, value in parts.items()}


def _preprocessed(graph: Graph, value: Value, space: spaces.Space[Any], normalize_images: bool) -> Value:
    if isinstance(space, spaces.Discrete):
        return _one_hot(graph, graph.reshape(value, 1, 1), [int(space.n)])
    if isinstance(space, spaces.MultiDiscrete):
        return _one_hot(graph, graph.reshape(value, 1, -1), [int(n) for n in space.nvec])
    if not isinstance(space, (spaces.Box, spaces.MultiBinary)):
        raise cannot(f"observations of {type(space).__name__}", "use a Box, or a dictionary of such")
    shape = space.shape or (1,)
    value = graph.reshape(value, 1, *shape)
    if np.dtype(space.dtype).kind != "f":
        value = graph.cast(value, np.float32)
    images = isinstance(space, spaces.Box) and normalize_images and is_image_space(space)
    return graph("Div", value, 255.0) if images else value


def _one_hot(graph: Graph, value: Value, sizes: list[int]) -> Value:
    whole = graph.cast(value, np.int64)
    each = [
        graph.cast(graph("Equal", part, np.arange(size)[None]), np.float32)
        for part, size in zip(graph.split(whole, [1] * len(sizes), axis=1), sizes, strict=True)
    ]
    return graph.concat(each, 1)


def normalized(graph: Graph, parts: Parts, norm: ObservationNorm | None) -> dict[Any, Value]:
    """Vectors in units of their deviation, as ``norm_obs`` asks for."""
    if norm is None:
        return dict(parts)
    return {key: _in_deviations(graph, value, norm, key) for key, value in parts.items()}


def _in_deviations(graph: Graph, value: Value, norm: ObservationNorm, key: Any) -> Value:
    if key not in norm.names:
        return value
    running = norm.norms[norm.names[key]]
    assert isinstance(running, RunningNorm)
    centred = graph("Sub", value, numbers(running.running_mean))
    scale = numbers(running.running_var.clamp(min=1e-4).rsqrt())
    return graph("Clip", graph("Mul", centred, scale), -CLIP, CLIP)


def scaled(graph: Graph, parts: Parts, normalizer: nn.Module, space: spaces.Space[Any]) -> dict[Any, Value]:
    """What an imitation policy's normaliser makes of frames ``[n_obs_steps, ...]``, float32."""
    if type(normalizer) is not ObservationNormalizer:
        raise cannot(f"the normaliser {type(normalizer).__name__}", "keep the policy's own")
    kinds = entries(space)
    modules = (
        {None: normalizer.entry}
        if normalizer.entry is not None
        else dict(zip(normalizer.keys, normalizer.entries, strict=True))
    )
    return {key: _scaled(graph, value, modules[key], kinds[key]) for key, value in parts.items()}


def _scaled(graph: Graph, value: Value, module: Any, space: spaces.Space[Any]) -> Value:
    if np.dtype(space.dtype).kind != "f":
        value = graph.cast(value, np.float32)
    if isinstance(module, ImageNormalizer):
        return graph("Div", value, 255.0)
    if isinstance(module, MinMaxNormalizer):
        return graph("Add", graph("Mul", value, numbers(module.scale)), numbers(module.offset))
    return value
