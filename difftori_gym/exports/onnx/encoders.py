"""Feature extractors and encoders as ONNX operations, forward only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from difftori_gym.baselines.tdmpc2_networks import Mish, SimNorm
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import LAYERS, check_layer, network, numbers
from difftori_gym.exports.onnx.observations import Parts
from difftori_gym.exports.onnx.refusals import cannot
from difftori_gym.models import CombinedEncoder, ImageEncoder, PointNetEncoder, StateEncoder
from difftori_gym.models.call_lists.networks import layers_of
from difftori_gym.models.combined_encoder import module_name
from difftori_gym.models.image_encoder import FLOW_SCALE, WhitenedConv2d


def features(graph: Graph, extractor: nn.Module, parts: Parts, batch: int) -> Value:
    """Preprocessed entries ``[B, ...]`` -> features ``[B, F]``."""
    if type(extractor) is CombinedEncoder:
        encoders = {key: extractor.encoders[module_name(key)] for key in extractor.keys}
    elif type(extractor) is CombinedExtractor:
        encoders = dict(extractor.extractors.items())
    else:
        return _of_one(graph, extractor, parts[None], batch)
    return graph.concat([_of_one(graph, each, parts[key], batch) for key, each in encoders.items()], 1)


def _of_one(graph: Graph, extractor: nn.Module, value: Value, batch: int) -> Value:
    if type(extractor) not in EXTRACTORS:
        known = ", ".join(kind.__name__ for kind in (*EXTRACTORS, CombinedEncoder, CombinedExtractor))
        raise cannot(f"the feature extractor {type(extractor).__name__}", f"train with one of {known}")
    return EXTRACTORS[type(extractor)](graph, extractor, value, batch)


def _flat(graph: Graph, extractor: Any, value: Value, batch: int) -> Value:
    return graph.reshape(value, batch, -1)


def _state(graph: Graph, extractor: StateEncoder, value: Value, batch: int) -> Value:
    return forward(graph, extractor.layers, graph.reshape(value, batch, -1))


def _points(graph: Graph, extractor: PointNetEncoder, value: Value, batch: int) -> Value:
    shape = extractor._observation_space.shape
    assert shape is not None
    count, channels = shape
    if extractor.in_channels < channels:
        value = graph.slice(value, 0, extractor.in_channels, axis=2)
    each = forward(graph, extractor.points, graph.reshape(value, batch * count, extractor.in_channels))
    greatest = graph.reduce("Max", graph.reshape(each, batch, count, -1), 1, keepdims=False)
    return forward(graph, extractor.final, greatest)


def _image(graph: Graph, extractor: ImageEncoder, value: Value, batch: int) -> Value:
    flow = extractor.flow
    shape = extractor._observation_space.shape
    assert shape is not None
    if flow is not None:
        value = graph.reshape(value, batch * flow, shape[0] // flow, *shape[1:])
    read = forward(graph, extractor.convolutions, value)
    if flow is not None:
        each = graph.reshape(read, batch, flow, -1)
        last = graph.slice(each, flow - 1, flow, axis=1)
        if flow > 1:
            change = graph("Sub", graph.slice(each, 1, flow, axis=1), graph.slice(each, 0, flow - 1, axis=1))
            last = graph.concat([last, graph("Mul", change, FLOW_SCALE)], 1)
        read = last
    read = graph.reshape(read, batch, -1)
    return forward(graph, extractor.squash, forward(graph, extractor.linear, read))


def _nature(graph: Graph, extractor: NatureCNN, value: Value, batch: int) -> Value:
    return forward(graph, extractor.linear, graph.reshape(forward(graph, extractor.cnn, value), batch, -1))


EXTRACTORS: dict[type[nn.Module], Callable[[Graph, Any, Value, int], Value]] = {
    FlattenExtractor: _flat,
    StateEncoder: _state,
    ImageEncoder: _image,
    PointNetEncoder: _points,
    NatureCNN: _nature,
}


def _convolution(graph: Graph, module: nn.Conv2d, value: Value) -> Value:
    return graph("Conv", value, numbers(module.weight), *_bias(module), **_places(module))


def _whitened(graph: Graph, module: WhitenedConv2d, value: Value) -> Value:
    with torch.no_grad():
        weight = torch.einsum("oihw,ic->ochw", module.weight, module.running_whitening)
        centre = module._conv_forward(module.running_mean, weight, None)[0]
        assert module.bias is not None
        shift = module.bias[:, None, None] - centre
    return graph("Add", graph("Conv", value, numbers(weight), **_places(module)), numbers(shift))


def _bias(module: Any) -> list[Any]:
    return [] if module.bias is None else [numbers(module.bias)]


def _places(module: Any) -> dict[str, Any]:
    if module.padding_mode != "zeros" or not isinstance(module.padding, tuple):
        raise cannot(f"the padding {module.padding_mode} {module.padding}", "pad with zeros, by a number of pixels")
    return dict(
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[*module.padding, *module.padding],
        dilations=list(module.dilation),
        group=module.groups,
    )


def _simnorm(graph: Graph, module: SimNorm, value: Value) -> Value:
    groups = graph("Softmax", graph("Reshape", value, np.array([0, -1, module.dim], np.int64)), axis=-1)
    return graph("Reshape", groups, np.array([0, -1], np.int64))


_FORWARD_ONLY: dict[type[nn.Module], Callable[[Graph, Any, Value], Value]] = {
    nn.Conv2d: _convolution,
    WhitenedConv2d: _whitened,
    nn.Flatten: lambda graph, module, value: graph("Flatten", value, axis=1),
    Mish: lambda graph, module, value: graph("Mish", value),
    SimNorm: _simnorm,
}


def forward(graph: Graph, module: nn.Module, value: Value, where: str = "the encoder") -> Value:
    """A network of layers whose gradient nobody asks for; ``where`` it is, for errors."""
    for layer in layers_of(module):
        check_layer(layer, {**LAYERS, **_FORWARD_ONLY}, where)
        if type(layer) in _FORWARD_ONLY:
            value = _FORWARD_ONLY[type(layer)](graph, layer, value)
        else:
            value, _ = network(graph, layer, value, where)
    return value
